"""One NVIDIA GPU: its primary context, memory, streams, events, graphs, and foreign arrays.

Context, memory, copies and streams are pycuda's; events and graphs are cuda-bindings', on the same
stream handles, because pycuda has no graphs and hides the handles of its events. Both are imported
when the first device is opened, never before: importing these modules touches no driver.

The *primary* context is used, which torch, CuPy and TensorRT share. It is pushed for each
operation and popped after it, so that whatever context a thread had is there again. Everything
may be used from any thread, by one thread at a time. Every object frees what it owns when it is
dropped, in whichever thread that happens, or at once by `free()`.
"""
