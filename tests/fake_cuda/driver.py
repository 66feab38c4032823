"""What tests ask of the fake driver: counts, memory, and failures on demand."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from tests.fake_cuda.build import MARK

COUNTERS: Final = (
    "device allocations",
    "device frees",
    "pinned allocations",
    "pinned frees",
    "streams made",
    "streams gone",
    "events made",
    "events gone",
    "graphs made",
    "graphs gone",
    "graph launches",
    "host functions",
    "busy frees",
    "context retains",
    "context releases",
    "inits",
    "rectangles",
    "allocations on the second device",
    "uploaded bytes",
    "downloaded bytes",
    "kernels",
)
"""In the order of the enumeration in `libcuda.c`."""

PAIRS: Final = (
    ("device allocations", "device frees"),
    ("pinned allocations", "pinned frees"),
    ("streams made", "streams gone"),
    ("events made", "events gone"),
    ("graphs made", "graphs gone"),
)
"""What is made, and what undoes it."""

OUT_OF_MEMORY: Final = 2
LAUNCH_FAILED: Final = 719


class Driver:
    """The fake driver of this process."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ[MARK])
        self.library.fake_counter.restype = ctypes.c_long
        self.library.fake_device_bytes.restype = ctypes.c_size_t
        self.library.fake_limit.argtypes = (ctypes.c_size_t,)

    def reset(self) -> None:
        """Set counters to 0, forget failures and lift the memory limit."""
        self.library.fake_reset()

    def count(self, name: str) -> int:
        """How often something happened since the reset."""
        return int(self.library.fake_counter(COUNTERS.index(name)))

    def made(self) -> dict[str, int]:
        """Everything that was made since the reset."""
        return {made: self.count(made) for made, _ in PAIRS}

    def left(self) -> dict[str, int]:
        """What was made since the reset and is still there."""
        left = {made: self.count(made) - self.count(gone) for made, gone in PAIRS}
        return {name: number for name, number in left.items() if number}

    def fail(self, function: str, after: int = 0, code: int = LAUNCH_FAILED) -> None:
        """Let the call of an exported function after the next `after` ones fail, once."""
        self.library.fake_fail(function.encode(), after, code)

    def limit(self, nbytes: int) -> None:
        """Let the device have this much memory."""
        self.library.fake_limit(nbytes)

    def lag(self, milliseconds: int) -> None:
        """Let every copy take this much longer."""
        self.library.fake_lag(milliseconds)

    @property
    def device_bytes(self) -> int:
        """Device memory in use."""
        return int(self.library.fake_device_bytes())

    @property
    def depth(self) -> int:
        """How many contexts this thread has pushed."""
        return int(self.library.fake_depth())


def on_fake_cuda() -> bool:
    """Whether this process runs on it."""
    return MARK in os.environ
