"""`make gpu-check`: everything about the GPU path that a machine with an NVIDIA GPU can check.

Offline, in minutes, and with whatever is installed: parts that lack a library are listed as not
run, with the reason. Where there is no TensorRT, torch computes the networks on the very buffers,
streams and graphs of the CUDA runtime, so that all of it but TensorRT itself is put to the test.
"""
