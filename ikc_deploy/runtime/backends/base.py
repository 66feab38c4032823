"""What a backend owes the loop: buffers, calls bound to them, copies, and marks in time.

A backend runs one bundle's three graphs on one device. Calls are bound to fixed buffers when a
session is made, so that the loop only enqueues. Everything a backend enqueues runs in order;
`synchronize` waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Buffer(Protocol):
    """Memory on the backend's device that a graph reads or writes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its fixed shape."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""


class Call(Protocol):
    """One graph bound to its buffers."""

    def enqueue(self) -> None:
        """Queue one execution.

        Raises `BackendError` if the backend refuses it, `OutOfMemoryError` if for want of memory.
        """


class Backend(Protocol):
    """Runs the graphs of one bundle on one device."""

    name: str
    """As in `load(backend=...)`."""
    device: str
    """What it runs on, for people."""

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Device memory for one tensor. Raises `OutOfMemoryError` if there is not enough."""

    def bind(self, graph: str, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Call:
        """`graph` ("predictor", "sftmd" or "corrector") on these buffers, ready to enqueue."""

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Queue a copy of a host array of the buffer's shape and dtype into it."""

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """A new host array with the buffer's content; waits for everything queued before."""

    def mark(self) -> object:
        """A point in the queue, for `elapsed_ms`."""

    def elapsed_ms(self, start: object, end: object) -> float:
        """Milliseconds between two marks that the device has passed."""

    def synchronize(self) -> None:
        """Wait until everything queued is done."""

    def close(self) -> None:
        """Free what the backend holds; it cannot be used afterwards."""


def sr_dtype(precision: str, io: str) -> np.dtype[Any]:
    """The dtype of the graphs' `sr` (see `ikc_deploy.export.graphs`)."""
    half = precision == "fp16" and io == "uint8"
    return np.dtype(np.float16 if half else np.float32)
