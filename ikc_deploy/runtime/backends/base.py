"""The interface of backends: buffers, graphs bound to them, copies, and timing events.

A backend runs one bundle's graphs on one device. Graphs are bound to fixed buffers when a
session is created, so that the loop only enqueues. All work that a backend enqueues runs in order;
`synchronize` waits for it. One thread at a time may use a backend; `clone` creates another one for
another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

Index = tuple[slice, ...]
"""Part of an array: a slice with start and stop for each axis."""


CudaGraphUse = Literal["auto", "require", "off"]
"""Recording of CUDA graphs: where possible, with an error where it is not, or off."""

DEFAULT_CUDA_GRAPH: Final[CudaGraphUse] = "auto"
"""Default of `load(cuda_graph=...)`."""


@dataclass(frozen=True)
class PlaneIndex:
    """Where one plane of a frame lies in a buffer, in entries."""

    offset: int
    """Place of its first entry."""
    row_stride: int
    """Distance of an entry and the one below it."""
    column_stride: int
    """Distance of an entry and the one to its right."""
    height: int
    """Number of rows."""
    width: int
    """Number of columns."""


class Buffer(Protocol):
    """Memory on the backend's device that a graph reads or writes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Fixed shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Fixed dtype."""

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
        """Type of the entries."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __len__(self) -> int:
        """Return the size of the first axis."""

    def __getitem__(self, index: int) -> DeviceFrames:
        """Return an entry of the first axis, in the same memory."""

    def reshape(self, shape: tuple[int, ...]) -> DeviceFrames:
        """Return the same memory with another shape."""


@dataclass(frozen=True)
class Binding:
    """A graph and the buffers of its tensors."""

    graph: str
    """Name of one of the bundle's graphs."""
    inputs: Mapping[str, Buffer]
    """Buffers of the inputs, by name."""
    outputs: Mapping[str, Buffer]
    """Buffers of the outputs, by name."""


class BoundGraph(Protocol):
    """One graph bound to its buffers."""

    def enqueue(self) -> None:
        """Queue one execution.

        Raises:
            BackendError: The backend refuses it.
            OutOfMemoryError: The device has too little memory.
        """


class Event(Protocol):
    """A point in the queue whose time can be read."""

    def record(self) -> None:
        """Place the event at the end of the queue; it may be recorded any number of times."""


class CapturedGraph(Protocol):
    """Bound graphs and events that were captured together."""

    def launch(self) -> None:
        """Queue all of them.

        Raises:
            BackendError: The backend refuses.
        """


class Backend(Protocol):
    """A runner of the graphs of one bundle on one device."""

    name: str
    """Name of the backend, as in `load(backend=...)`."""
    device: str
    """Name of the device, for people."""
    default_streams: int
    """Number of frames to process at the same time, each by a clone: 2 where one copies while
    another computes."""

    def clone(self) -> Backend:
        """Create another queue with the same graphs on the same device.

        Returns:
            The other backend; the caller closes it before this one.

        Raises:
            BackendError: The device refuses.
        """

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Allocate device memory for one tensor; it is freed when the buffer is dropped.

        Raises:
            OutOfMemoryError: The device has too little memory.
        """

    def free_memory(self) -> int | None:
        """Return the number of bytes that can still be allocated; None if unknown."""

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Bind graphs to buffers.

        Args:
            bindings: The graphs and their buffers.

        Returns:
            A bound graph for each binding. They never run at the same time, and may share scratch
            memory.

        Raises:
            BackendError: The backend refuses a shape.
            EngineError: The bundle has no engine for a shape.
        """

    def from_dlpack(self, frame: object) -> DeviceFrames:
        """Return an array of another library on this device, without a copy.

        Call it in the thread that created the array.

        Raises:
            InputError: The array is on another device.
        """

    def upload(self, array: NDArray[Any] | Any, buffer: Buffer) -> None:
        """Queue a copy to a buffer.

        Args:
            array: A host array or `DeviceFrames` with the buffer's shape and dtype.
            buffer: The target.
        """

    def as_buffer(self, array: NDArray[Any] | Any) -> Buffer | None:
        """Return an array as a buffer that `copy` can read, without a copy.

        Args:
            array: A host array or `DeviceFrames`.

        Returns:
            The buffer; None if the array has to be uploaded first.
        """

    def copy(self, source: Buffer, part: Index, target: Buffer, place: Index) -> None:
        """Queue a copy of a part of one buffer into another.

        Args:
            source: A buffer, or what `as_buffer` returned.
            part: Slices of the source, one for each axis.
            target: Another buffer of the same dtype and number of axes.
            place: Slices of the target, as long as those of the source.
        """

    def texture(self, buffer: Buffer, plane: PlaneIndex, block: int) -> NDArray[np.float32]:
        """Return texture in blocks of a plane in device memory, after all queued work.

        Args:
            buffer: A buffer of frames, or what `as_buffer` returned.
            plane: The plane in it.
            block: Side of the blocks in pixels, a multiple of 4.

        Returns:
            The sums of `ikc_deploy.runtime.frame_plane.FramePlane.texture`.
        """

    def means(
        self, buffer: Buffer, plane: PlaneIndex, height: int, width: int
    ) -> NDArray[np.float32]:
        """Return means of blocks of a plane in device memory, after all queued work.

        Args:
            buffer: A buffer of frames, or what `as_buffer` returned.
            plane: The plane in it.
            height: Height of the blocks in pixels.
            width: Width of the blocks in pixels.

        Returns:
            The means of `ikc_deploy.runtime.frame_plane.FramePlane.means`.
        """

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """Wait for all queued work and return a new host array with the buffer's content."""

    def copy_to_device_array(self, buffer: Buffer) -> DeviceFrames:
        """Return a copy of the buffer on the device, complete on return, owned by the caller."""

    def create_event(self) -> Event:
        """Return a new event that is not in the queue yet."""

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return milliseconds between two events that the device has reached."""

    def capture(
        self, graphs: Sequence[BoundGraph], queue: Callable[[], None]
    ) -> CapturedGraph | None:
        """Capture work as one graph instead of running it.

        Args:
            graphs: The bound graphs that `queue` enqueues.
            queue: A function that enqueues them and records events.

        Returns:
            The captured graph, or None if the backend can only run bound graphs one by one.
        """

    def synchronize(self) -> None:
        """Wait until all queued work is complete.

        Raises:
            BackendError: Some of it failed.
        """

    def close(self) -> None:
        """Free all memory of the backend; it cannot be used afterwards."""
