"""Batches: folders of images and long clips, upscaled by many Ray actors at once (Ray Data).

A batch is planned and split into independent tasks, so a lost task can be repeated. The results of
the tasks are joined at the end. The output is identical to that of one machine.
"""
