"""Offline methods for one image whose blur is in no family that a network was trained on.

Each method fits networks to the image itself, for minutes, in torch. The real-time runtime does
not use this package. Each method is a module or package; `optimize` is their common loop.
"""
