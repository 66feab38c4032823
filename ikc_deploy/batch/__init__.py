"""Batches: folders of pictures and long clips, upscaled by many actors at once (Ray Data).

What is to do is planned here and cut into tasks; tasks know nothing of each other, so a lost one is
simply done again; what they made is put together here. The result is that of one machine.
"""
