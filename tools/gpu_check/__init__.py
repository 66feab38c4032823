"""`make gpu-check`: all checks of the GPU path that a machine with an NVIDIA GPU can run.

It needs no network and takes minutes. Parts that lack a library are listed as not run, with the
reason. Without TensorRT, torch computes the networks on the buffers, streams and graphs of the CUDA
runtime, so everything but TensorRT itself is tested.
"""
