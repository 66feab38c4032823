"""The interface of backends: buffers, graphs bound to them, copies, and timing events.

A backend runs the graphs of one bundle on one device. Graphs are bound to fixed buffers in advance,
so the loop only enqueues them. All work of a backend runs in the order in which it was enqueued;
`synchronize` waits for it. A backend may be used by one thread at a time; `clone` creates another
one for another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

Index = tuple[slice, ...]
"""Part of an array: one slice, with start and stop, per axis."""


CudaGraphUse = Literal["auto", "require", "off"]
"""Whether CUDA graphs are recorded: if possible, always (an error if not possible), or never."""

DEFAULT_CUDA_GRAPH: Final[CudaGraphUse] = "auto"
"""Default of `load(cuda_graph=...)`."""


@dataclass(frozen=True)
class PlaneIndex:
    """Location of one plane of a frame in a buffer, in elements."""

    offset: int
    """Offset of the first element."""
    row_stride: int
    """Distance between vertical neighbours."""
    column_stride: int
    """Distance between horizontal neighbours."""
    height: int
    """Number of rows."""
    width: int
    """Number of columns."""


class Buffer(Protocol):
    """Memory on the backend's device that a graph reads or writes; shape and dtype are fixed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


class DeviceFrames(Protocol):
    """An array in device memory, from `Backend.from_dlpack` or `copy_to_device_array`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __len__(self) -> int:
        """Return the size of the first axis."""

    def __getitem__(self, index: int) -> DeviceFrames:
        """Return a view of one element of the first axis."""

    def reshape(self, shape: tuple[int, ...]) -> DeviceFrames:
        """Return a view with another shape."""


@dataclass(frozen=True)
class Binding:
    """A graph and the buffers for its inputs and outputs."""

    graph: str
    """Name of one of the bundle's graphs."""
    inputs: Mapping[str, Buffer]
    """Buffers of the inputs, by name."""
    outputs: Mapping[str, Buffer]
    """Buffers of the outputs, by name."""


class BoundGraph(Protocol):
    """A graph that is bound to its buffers."""

    def enqueue(self) -> None:
        """Queue one execution.

        Raises:
            BackendError: The backend reports an error.
            OutOfMemoryError: The device has too little memory.
        """


class Event(Protocol):
    """A time stamp in the queue."""

    def record(self) -> None:
        """Queue the event; it may be recorded again."""


class CapturedGraph(Protocol):
    """Bound graphs and events that were captured as one graph."""

    def launch(self) -> None:
        """Queue one execution.

        Raises:
            BackendError: The backend reports an error.
        """


class Backend(Protocol):
    """Runs the graphs of one bundle on one device."""

    name: str
    """Name of the backend, as in `load(backend=...)`."""
    device: str
    """Human-readable name of the device."""
    default_streams: int
    """Default number of frames to process concurrently, each on its own clone: 2 if the device can
    copy and compute at the same time, else 1."""

    def clone(self) -> Backend:
        """Return a backend for the same graphs and device with its own queue.

        Returns:
            The clone; the caller closes it before this backend.

        Raises:
            BackendError: The device reports an error.
        """

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Allocate device memory for one tensor; it is freed when the buffer is deleted.

        Raises:
            OutOfMemoryError: The device has too little memory.
        """

    def free_memory(self) -> int | None:
        """Return the free memory in bytes; None if unknown."""

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Bind graphs to buffers.

        Args:
            bindings: The graphs and their buffers.

        Returns:
            One bound graph per binding. They never run at the same time, and may share scratch
            memory.

        Raises:
            BackendError: The backend does not support a shape.
            EngineError: The bundle has no engine for a shape.
        """

    def from_dlpack(self, frame: object) -> DeviceFrames:
        """Import an array of another library on this device, without a copy.

        Must be called in the thread that created the array.

        Raises:
            InputError: The array is on another device.
        """

    def upload(self, array: NDArray[Any] | Any, buffer: Buffer) -> None:
        """Queue a copy to a buffer.

        Args:
            array: A host array or `DeviceFrames` with the buffer's shape and dtype.
            buffer: The destination.
        """

    def as_buffer(self, array: NDArray[Any] | Any) -> Buffer | None:
        """Return an array as a source for `copy`, without copying it.

        Args:
            array: A host array or `DeviceFrames`.

        Returns:
            The buffer; None if the array must be uploaded first.
        """

    def copy(self, source: Buffer, part: Index, target: Buffer, place: Index) -> None:
        """Queue a copy of a part of one buffer into another.

        Args:
            source: A buffer, or the result of `as_buffer`.
            part: Index of the part in the source.
            target: Another buffer with the same dtype and number of axes.
            place: Index of the part in the target, with the same lengths.
        """

    def texture(self, buffer: Buffer, plane: PlaneIndex, block: int) -> NDArray[np.float32]:
        """Wait for all queued work, and return the texture of blocks of a plane.

        Args:
            buffer: A buffer of frames, or the result of `as_buffer`.
            plane: The plane in the buffer.
            block: Side of the blocks in pixels, a multiple of 4.

        Returns:
            As `ikc_deploy.runtime.frame_plane.FramePlane.texture`.
        """

    def means(
        self, buffer: Buffer, plane: PlaneIndex, height: int, width: int
    ) -> NDArray[np.float32]:
        """Wait for all queued work, and return the means of blocks of a plane.

        Args:
            buffer: A buffer of frames, or the result of `as_buffer`.
            plane: The plane in the buffer.
            height: Height of the blocks in pixels.
            width: Width of the blocks in pixels.

        Returns:
            As `ikc_deploy.runtime.frame_plane.FramePlane.means`.
        """

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """Wait for all queued work, and copy a buffer to a new host array."""

    def copy_to_device_array(self, buffer: Buffer) -> DeviceFrames:
        """Return a copy of a buffer in device memory, complete on return, owned by the caller."""

    def create_event(self) -> Event:
        """Return a new event."""

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return the milliseconds between two events that have completed."""

    def capture(
        self, graphs: Sequence[BoundGraph], queue: Callable[[], None]
    ) -> CapturedGraph | None:
        """Capture work as one graph instead of running it.

        Args:
            graphs: The bound graphs that `queue` enqueues.
            queue: A function that enqueues them and records events.

        Returns:
            The captured graph; None if the backend does not support it.
        """

    def synchronize(self) -> None:
        """Wait until all queued work is complete.

        Raises:
            BackendError: The work failed.
        """

    def close(self) -> None:
        """Free all memory of the backend, which cannot be used afterwards."""
