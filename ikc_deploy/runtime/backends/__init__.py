"""Backends, which run the graphs of a bundle; `base` is their interface."""
