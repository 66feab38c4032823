"""Offline methods, for images whose blur is outside the families that networks were trained on.

Each method fits networks to the image itself, in torch, for minutes to hours. The real-time runtime
does not use this package. Each method is a module or package; `optimize` is the common loop.
"""
