"""One NVIDIA GPU: its primary context, memory, streams, events, graphs, and arrays of others.

pycuda provides the context, memory, copies and streams. cuda-bindings provides events and graphs on
the same stream handles, because pycuda has no graphs and hides the handles of its events. Both are
imported when the first device is opened: importing these modules touches no driver.

The *primary* context is used, which torch, CuPy and TensorRT share. It is pushed before each
operation and popped after it, which restores the previous context of the thread. Any thread may use
an object, one thread at a time. Every object frees what it owns when it is garbage-collected, in
any thread, or at once by `free()`.
"""
