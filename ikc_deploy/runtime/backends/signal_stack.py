"""The alternate signal stack of a thread, which OpenVINO replaces and may unmap.

Python's signal handlers run on the alternate stack of the thread that receives the signal. The
thread that first uses a device of OpenVINO, or compiles a model in it, gets another one, which
belongs to OpenVINO (2026.4): once that is unmapped, the next signal, for example Ctrl-C, ends the
process with a segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Restore the alternate signal stack of this thread at the end of the block, on Linux."""
    if sys.platform != "linux":
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _SignalStack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)
