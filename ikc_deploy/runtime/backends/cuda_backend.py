"""The backend for NVIDIA GPUs: memory, copies and streams. A `GraphRunner` runs the graphs.

Each backend has its own stream. Clones share the device and the runner's graphs, so that one can
copy while another computes.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ikc_deploy.errors import BackendError, OutOfMemoryError
from ikc_deploy.runtime.backends.base import (
    DEFAULT_CUDA_GRAPH,
    Binding,
    BoundGraph,
    Buffer,
    CapturedGraph,
    CudaGraphUse,
    Event,
    Index,
    PlaneIndex,
)
from ikc_deploy.runtime.cuda.arrays import DeviceArray, DeviceMemoryPool, from_dlpack
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer, PinnedBuffer
from ikc_deploy.runtime.cuda.cuda_graphs import CudaGraph, capture
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.plane_sums import Blocks, Quantity, queue_sums, sums_in_levels
from ikc_deploy.runtime.cuda.rectangles import ArrayPart, rectangles
from ikc_deploy.runtime.cuda.streams import CudaEvent, CudaStream, to_host

_LOG = logging.getLogger(__name__)
_Thing = TypeVar("_Thing")

_SUMS_KEPT: Final = 8
"""Number of cached buffers for block sums: two for each of four frame shapes."""

_CAPTURES: Final = 2
"""Number of attempts to capture a graph, which other code in the process may disturb."""


class GraphRunner(Protocol):
    """Runs the graphs of a bundle in device memory, on any number of streams."""

    name: str
    """Name of the backend, as in `load(backend=...)`."""

    def register_stream(self, stream: CudaStream) -> None:
        """Load everything that a stream needs.

        Raises:
            BackendError: It cannot be loaded.
        """

    def unregister_stream(self, stream: CudaStream) -> None:
        """Free everything that only this stream needs, even if bound graphs refer to it."""

    def bind(self, bindings: Sequence[Binding], stream: CudaStream) -> list[StreamBoundGraph]:
        """Bind graphs to buffers and a stream.

        Args:
            bindings: The graphs and their buffers.
            stream: The stream on which they run.

        Returns:
            One bound graph per binding. They never run at the same time, and may share scratch
            memory.

        Raises:
            BackendError: A graph cannot be prepared.
            EngineError: No engine fits.
        """

    def close(self) -> None:
        """Free everything that the streams share."""


class StreamBoundGraph(BoundGraph, Protocol):
    """A graph bound to its buffers and one stream."""

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph can capture it."""


class CudaBackend:
    """A backend with one GPU and one stream.

    Args:
        runner: Runs the graphs; owned by the first backend, not by its clones.
        device: The GPU.
        cuda_graph: Whether to capture CUDA graphs: "auto" if possible, "require" (an error if not
            possible), or "off".

    Raises:
        BackendError: The runner cannot load the graphs, or the device reports an error.
    """

    default_streams = 2
    """Two, so that one stream copies while the other computes."""

    def __init__(
        self, runner: GraphRunner, device: Device, cuda_graph: CudaGraphUse = DEFAULT_CUDA_GRAPH
    ) -> None:
        self.name = runner.name
        self.device = f"{device.name} (GPU {device.ordinal})"
        self._runner: GraphRunner | None = runner
        self._gpu = device
        self._cuda_graph = cuda_graph
        self._owns_runner = True
        self._owned: weakref.WeakSet[Any] = weakref.WeakSet()
        self._staging: weakref.WeakKeyDictionary[DeviceBuffer, PinnedBuffer]
        self._staging = weakref.WeakKeyDictionary()
        self._sums: dict[int, Buffer] = {}
        self._stream = self._own(CudaStream(device))
        # A separate stream, because callers import arrays while workers may capture a graph.
        self._import_stream = self._own(CudaStream(device))
        self._results = self._own(DeviceMemoryPool(device))
        runner.register_stream(self._stream)

    def clone(self) -> CudaBackend:
        """Return a backend with the same graphs and its own stream; close it before this one."""
        made = CudaBackend(self._open_runner(), self._gpu, self._cuda_graph)
        made._owns_runner = False
        return made

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Allocate uninitialised device memory; unused memory of results is freed if needed."""
        try:
            buffer = DeviceBuffer(self._gpu, shape, dtype)
        except OutOfMemoryError:
            self._results.free_unused()
            buffer = DeviceBuffer(self._gpu, shape, dtype)
        return self._own(buffer)

    def free_memory(self) -> int:
        """Return the free memory of the GPU in bytes."""
        return self._gpu.free_memory()[0]

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Bind graphs to buffers and the stream."""
        return list(self._open_runner().bind(bindings, self._stream))

    def from_dlpack(self, frame: object) -> DeviceArray:
        """Import an array on this GPU by DLPack or `__cuda_array_interface__`, without a copy."""
        return from_dlpack(frame, self._gpu, self._import_stream)

    def upload(self, array: NDArray[Any] | DeviceArray, buffer: Buffer) -> None:
        """Queue a copy, through pinned memory for host arrays."""
        target = device_buffer(buffer)
        if isinstance(array, DeviceArray):
            if array.ready is not None:
                self._stream.wait(array.ready)
            self._stream.copy(array.address, target.address, target.nbytes)
            return
        # An unfinished copy would read the new content.
        self._stream.synchronize()
        staging = self._staged(target)
        np.copyto(staging.array, array, casting="no")
        self._stream.upload(staging, target)

    def as_buffer(self, array: NDArray[Any] | DeviceArray) -> Buffer | None:
        """Return an array in GPU memory itself; None for an array in host memory."""
        if not isinstance(array, DeviceArray):
            return None
        if array.ready is not None:
            self._stream.wait(array.ready)
        return array

    def copy(self, source: Buffer, part: Index, target: Buffer, place: Index) -> None:
        """Queue copies of rectangles on the device."""
        first, second = _part(source, part), _part(target, place)
        for rectangle in rectangles(first, second, source.dtype.itemsize):
            self._stream.copy_rectangle(rectangle)

    def texture(self, buffer: Buffer, plane: PlaneIndex, block: int) -> NDArray[np.float32]:
        """Compute texture on the GPU; only the sums are downloaded."""
        return self._block_sums("steps", buffer, Blocks(plane, block, block))

    def means(
        self, buffer: Buffer, plane: PlaneIndex, height: int, width: int
    ) -> NDArray[np.float32]:
        """Compute means on the GPU; only the sums are downloaded."""
        sums = self._block_sums("levels", buffer, Blocks(plane, height, width))
        return sums / np.float32(height * width)

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """Return a new host array, copied through pinned memory."""
        source = device_buffer(buffer)
        return to_host(self._stream, source, self._staged(source))

    def copy_to_device_array(self, buffer: Buffer) -> DeviceArray:
        """Return a new copy in device memory, complete on return."""
        source = device_buffer(buffer)
        result = self._results.array(source.shape, source.dtype, self._stream)
        self._stream.copy(source.address, result.address, source.nbytes)
        self._stream.synchronize()
        return result

    def create_event(self) -> Event:
        """Return a CUDA event."""
        return _StreamEvent(self._own(CudaEvent(self._gpu)), self._stream)

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return milliseconds between two events, by the GPU's clock."""
        return cast(_StreamEvent, start).event.elapsed_ms(cast(_StreamEvent, end).event)

    def capture(
        self, graphs: Sequence[BoundGraph], queue: Callable[[], None]
    ) -> CapturedGraph | None:
        """Capture the work of `queue` as a CUDA graph; return None if that is not possible.

        A failed capture, which other code in the process may cause, is repeated once. If it fails
        again, a warning is logged, and graphs are launched one by one from then on.

        Raises:
            BackendError: Capture is required, but not possible.
        """
        if self._cuda_graph == "off" or not graphs:
            return None
        if not all(cast(StreamBoundGraph, graph).capturable for graph in graphs):
            if self._cuda_graph == "require":
                raise BackendError(
                    f"{self.name} cannot record these networks as a CUDA graph, and cuda_graph is "
                    "'require'; choose cuda_graph='auto' to launch them one by one"
                )
            return None
        for _ in range(_CAPTURES):
            try:
                return self._own(capture(self._stream, queue))
            except BackendError as error:
                self._stream.synchronize()
                refusal = error
        if self._cuda_graph == "require":
            raise BackendError(
                f"{refusal}; choose cuda_graph='auto' to launch the networks one by one"
            )
        self._cuda_graph = "off"
        _LOG.warning("%s; frames are launched graph by graph, which is slower", refusal)
        return None

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def close(self) -> None:
        """Wait for the stream, then free everything except results that the caller owns."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        # The stack frees in reverse order, even if a callback raises: CUDA graphs first, then the
        # contexts or sessions that they use, then memory, and streams last.
        with ExitStack() as stack:
            things = sorted(self._owned, key=_teardown_rank, reverse=True)
            for thing in things:
                if not isinstance(thing, CudaGraph):
                    stack.callback(thing.free)
            if self._owns_runner:
                stack.callback(runner.close)
            stack.callback(runner.unregister_stream, self._stream)
            for thing in things:
                if isinstance(thing, CudaGraph):
                    stack.callback(thing.free)
            self._stream.synchronize()

    def _block_sums(
        self, quantity: Quantity, buffer: Buffer, blocks: Blocks
    ) -> NDArray[np.float32]:
        frames = _memory(buffer)
        size = math.prod(blocks.shape)
        if size == 0:
            return np.zeros(blocks.shape, np.float32)
        sums = self._sums.pop(size, None)
        if sums is None:
            while len(self._sums) >= _SUMS_KEPT:
                del self._sums[next(iter(self._sums))]
            sums = self.allocate((size,), np.uint64)
        self._sums[size] = sums
        queue_sums(quantity, frames, blocks, device_buffer(sums), self._stream)
        return sums_in_levels(self.download(sums), frames, blocks.shape)

    def _open_runner(self) -> GraphRunner:
        if self._runner is None:
            raise BackendError(f"this {self.name} backend is closed; load the bundle again")
        return self._runner

    def _own(self, thing: _Thing) -> _Thing:
        self._owned.add(thing)
        return thing

    def _staged(self, buffer: DeviceBuffer) -> PinnedBuffer:
        staging = self._staging.get(buffer)
        if staging is None:
            staging = self._own(PinnedBuffer(self._gpu, buffer.shape, buffer.dtype))
            self._staging[buffer] = staging
        return staging


class _StreamEvent:
    def __init__(self, event: CudaEvent, stream: CudaStream) -> None:
        self.event = event
        self._stream = stream

    def record(self) -> None:
        self.event.record(self._stream)


def _teardown_rank(thing: object) -> int:
    """Return the position of an object in the order of teardown: users first, streams last."""
    kinds = (CudaGraph, CudaEvent, DeviceBuffer, PinnedBuffer, DeviceMemoryPool, CudaStream)
    return kinds.index(type(thing))


def _memory(buffer: Buffer) -> DeviceArray | DeviceBuffer:
    return buffer if isinstance(buffer, DeviceArray) else device_buffer(buffer)


def _part(buffer: Buffer, index: Index) -> ArrayPart:
    memory = _memory(buffer)
    return ArrayPart(memory.address, memory.shape, index)


def device_buffer(buffer: Buffer) -> DeviceBuffer:
    """Return `buffer` as a `DeviceBuffer`.

    Raises:
        BackendError: The buffer is not in GPU memory.
    """
    if not isinstance(buffer, DeviceBuffer):
        raise BackendError(f"a buffer of type {type(buffer).__name__} is not in GPU memory")
    return buffer
