"""Bundles: the manifest, the files it lists, TensorRT engines, and the hosts that they fit."""
