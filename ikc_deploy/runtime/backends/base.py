"""What a backend owes the loop: buffers, calls bound to them, copies, and marks in time.

A backend runs one bundle's three graphs on one device. Calls are bound to fixed buffers when a
session is made, so that the loop only enqueues. Everything a backend enqueues runs in order;
`synchronize` waits for it. A backend serves one thread at a time; `clone` makes another one
for another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Buffer(Protocol):
    """Memory on the backend's device that a graph reads or writes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its fixed shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its fixed dtype."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""


class DeviceFrames(Protocol):
    """An array in device memory, from `Backend.from_dlpack` or `copy_to_device_array`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""

    @property
    def ndim(self) -> int:
        """Its number of axes."""

    def __len__(self) -> int:
        """The size of its first axis."""

    def __getitem__(self, index: int) -> DeviceFrames:
        """An entry of its first axis, in the same memory."""

    def reshape(self, shape: tuple[int, ...]) -> DeviceFrames:
        """The same memory under another shape."""


@dataclass(frozen=True)
class Binding:
    """A graph and the buffers for its tensors, by name."""

    graph: str
    """One of the bundle's graphs: "predictor", "sftmd" or "corrector"."""
    inputs: Mapping[str, Buffer]
    outputs: Mapping[str, Buffer]


class BoundGraph(Protocol):
    """One graph bound to its buffers."""

    def enqueue(self) -> None:
        """Queue one execution.

        Raises `BackendError` if the backend refuses it, `OutOfMemoryError` if for want of memory.
        """


class Event(Protocol):
    """A point in the queue whose time can be read."""

    def record(self) -> None:
        """Put it at the end of the queue; it may be moved there any number of times."""


class CapturedGraph(Protocol):
    """Calls and marks that were recorded together."""

    def launch(self) -> None:
        """Queue all of them. Raises `BackendError` if the backend refuses."""


class Backend(Protocol):
    """Runs the graphs of one bundle on one device."""

    name: str
    """As in `load(backend=...)`."""
    device: str
    """What it runs on, for people."""

    def clone(self) -> Backend:
        """Another queue with the same graphs on the same device; close it before this one."""

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Device memory for one tensor. Raises `OutOfMemoryError` if there is not enough."""

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """A call for each binding, ready to enqueue. They may share scratch memory."""

    def from_dlpack(self, frame: object) -> DeviceFrames:
        """An array of another library on this device, without a copy.

        Raises `InputError` if it lies elsewhere. Call it in the thread whose work made the array.
        """

    def upload(self, array: NDArray[Any] | Any, buffer: Buffer) -> None:
        """Queue a copy of a host array, or of `DeviceFrames`, of the buffer's shape and dtype."""

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """A new host array with the buffer's content; waits for everything queued before."""

    def copy_to_device_array(self, buffer: Buffer) -> DeviceFrames:
        """A copy of the buffer on the device, complete on return and the caller's own."""

    def create_event(self) -> Event:
        """A new mark, not yet in the queue."""

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Milliseconds between two marks that the device has passed."""

    def capture(
        self, graphs: Sequence[BoundGraph], queue: Callable[[], None]
    ) -> CapturedGraph | None:
        """What `queue` enqueues (those calls, and marks), recorded instead of run.

        None if the backend runs calls one by one only.
        """

    def synchronize(self) -> None:
        """Wait until everything queued is done."""

    def close(self) -> None:
        """Free what the backend holds; it cannot be used afterwards."""


def sr_dtype(precision: str, io: str) -> np.dtype[Any]:
    """The dtype of the graphs' `sr` (see `ikc_deploy.export.graphs`)."""
    half = precision == "fp16" and io == "uint8"
    return np.dtype(np.float16 if half else np.float32)
