"""`DeviceArray`: arrays in GPU memory that are exchanged with other libraries."""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError, OutOfMemoryError
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer, PinnedBuffer
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import memory_view
from ikc_deploy.runtime.cuda.streams import (
    LEGACY_STREAM,
    CudaEvent,
    CudaStream,
    ForeignStream,
    to_host,
)


class DeviceArray:
    """A C-contiguous array in GPU memory.

    Other libraries read it without a copy through `__cuda_array_interface__` or DLPack:
    `torch.from_dlpack(image)`, `cupy.asarray(image)`, `numba.cuda.as_cuda_array(image)`. Their
    arrays keep it alive. Arrays that a call returns are complete; no synchronisation is needed. The
    memory is reused after the last reference is deleted and the reading library's work is complete,
    on the stream that it named (for DLPack) or on its default stream.

    Args:
        device: GPU that holds the memory.
        address: Address of the first element.
        shape: Shape of the array.
        dtype: Data type.
        keep: Object that owns the memory; the array keeps it alive.
        ready: Event after which the content is complete; None if it is complete.
    """

    def __init__(
        self,
        device: Device,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        keep: object,
        ready: CudaEvent | None = None,
    ) -> None:
        self.device = device
        self.address = address
        self.shape = shape
        self.dtype = dtype
        self.ready = ready
        """Event after which the content is complete; None if it is complete."""
        self._keep = keep

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return self.shape[0]

    def __getitem__(self, index: int) -> DeviceArray:
        """Return a view of one element of the first axis.

        Args:
            index: Index; negative values count from the end.

        Returns:
            An array that shares this memory and keeps it alive.

        Raises:
            IndexError: The index is out of range.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside of {len(self)} entries")
        rest = self.shape[1:]
        offset = index % len(self) * math.prod(rest) * self.dtype.itemsize
        return DeviceArray(
            self.device, self.address + offset, rest, self.dtype, self._keep, self.ready
        )

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        """Return a view with another shape.

        Args:
            shape: A shape with the same number of elements.

        Returns:
            An array that shares this memory and keeps it alive.

        Raises:
            InputError: The number of elements differs.
        """
        if math.prod(shape) != math.prod(self.shape):
            raise InputError(f"{list(self.shape)} cannot be reshaped to {list(shape)}")
        return DeviceArray(self.device, self.address, shape, self.dtype, self._keep, self.ready)

    def to_numpy(self) -> NDArray[Any]:
        """Wait until the content is complete, and copy it to host memory."""
        stream = CudaStream(self.device)
        if self.ready is not None:
            stream.wait(self.ready)
        staging = PinnedBuffer(self.device, self.shape, self.dtype)
        return to_host(stream, self, staging)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """CUDA Array Interface, version 3; the array is C-contiguous and complete.

        After the last reference to the memory is deleted, it is not reused before the work on the
        legacy default stream has finished.
        """
        self._is_read_on(LEGACY_STREAM)
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            # None: no synchronisation is needed, because the content is complete.
            "stream": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's device: its type (2 for CUDA) and its ordinal number."""
        return self._view().__dlpack_device__()

    def __dlpack__(self, **options: Any) -> object:
        """Return a DLPack capsule that shares the memory.

        Args:
            **options: The options of the array API standard. `stream` is the stream on which the
                consumer reads: the memory is not used again before its work has finished.

        Returns:
            The capsule, which keeps the array alive.
        """
        # A consumer's stream has nothing to wait for, but the memory has to wait for the consumer.
        named = options.get("stream")
        self._is_read_on(ForeignStream(named) if named and named > 2 else LEGACY_STREAM)
        options["stream"] = None
        return self._view().__dlpack__(**options)

    def _is_read_on(self, stream: ForeignStream) -> None:
        if isinstance(self._keep, _Block):
            self._keep.readers.add(stream)

    def _view(self) -> Any:
        return memory_view().from_cuda_array_interface(self, stream_ptr=-1)


class DeviceMemoryPool:
    """A pool of device memory for results; it keeps freed blocks and uses them again.

    Another library may still read a block when its last array is dropped: torch frees a tensor as
    soon as its kernels are queued. So a block returns with an event on every stream on which it was
    read, and its next user waits for these events on the device.

    Args:
        device: GPU that holds the memory.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._unused: _Unused | None = {}

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: CudaStream
    ) -> DeviceArray:
        """Return a new array with uninitialised memory, to be written on `stream`.

        Raises:
            OutOfMemoryError: The device has too little memory, also without the unused blocks.
        """
        buffer = self._reused(math.prod(shape) * dtype.itemsize, stream)
        block = _Block()
        weakref.finalize(block, self._take_back, buffer, block.readers)
        return DeviceArray(self._device, buffer.address, shape, dtype, block)

    def free(self) -> None:
        """Free unused blocks; blocks in use are freed when their arrays are dropped."""
        unused, self._unused = self._unused, None
        _free_all(unused or {})

    def free_unused(self) -> None:
        """Free unused blocks, after the work that still reads them."""
        _free_all(self._unused or {})

    def _reused(self, size: int, stream: CudaStream) -> DeviceBuffer:
        # Arrays are dropped in any thread, at any time: a deque needs no lock for that.
        blocks = (self._unused or {}).get(size)
        if blocks:
            buffer, events = blocks.pop()
            for event in events:
                stream.wait(event)
            return buffer
        try:
            return DeviceBuffer(self._device, (size,), np.uint8)
        except OutOfMemoryError:
            self.free_unused()
            return DeviceBuffer(self._device, (size,), np.uint8)

    def _take_back(self, buffer: DeviceBuffer, readers: set[ForeignStream]) -> None:
        """Keep a block that nothing refers to any more."""
        # Read once: another thread may free the pool meanwhile.
        unused = self._unused
        events = []
        for reader in readers:
            event = CudaEvent(self._device)
            event.record(reader)
            events.append(event)
        if unused is None:
            _wait_and_free(buffer, events)
        else:
            unused.setdefault(buffer.nbytes, deque()).append((buffer, events))


_Unused = dict[int, deque[tuple[DeviceBuffer, list[CudaEvent]]]]
"""Unused blocks by size in bytes, with the events after which they can be written."""


class _Block:
    """The owner of a block of the pool, which returns when this object is dropped."""

    def __init__(self) -> None:
        self.readers: set[ForeignStream] = set()


def _free_all(unused: _Unused) -> None:
    for blocks in unused.values():
        while blocks:
            _wait_and_free(*blocks.pop())


def _wait_and_free(buffer: DeviceBuffer, events: list[CudaEvent]) -> None:
    for event in events:
        event.synchronize()
    buffer.free()


def from_dlpack(frame: object, device: Device, stream: CudaStream) -> DeviceArray:
    """Return another library's array as a `DeviceArray`, without a copy.

    The GPU waits for the work that is queued on the array's stream (by DLPack, or in
    `__cuda_array_interface__`) and on the legacy default stream, which libraries use that name
    none; the caller does not wait. Call this in the thread that created the array.

    Args:
        frame: An array with DLPack or `__cuda_array_interface__`; the result keeps it alive.
        device: The GPU on which it must be.
        stream: Stream on which the wait is queued.

    Returns:
        The array, in the same memory.

    Raises:
        InputError: The array is on another device or not C-contiguous.
    """
    if isinstance(frame, DeviceArray) and frame.device is device:
        return frame
    with device.current():
        try:
            view = memory_view().from_any_interface(frame, stream_ptr=stream.handle)
        except (BufferError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"a frame of type {type(frame).__name__} cannot be read: {error}"
            ) from error
    if not view.is_device_accessible or view.device_id != device.ordinal:
        where = f"GPU {view.device_id}" if view.is_device_accessible else "host memory"
        raise InputError(
            f"the frame is in {where}, and this Upscaler runs on GPU {device.ordinal}; "
            "move the frame there first"
        )
    shape, dtype = tuple(view.shape), np.dtype(view.dtype)
    if view.strides is not None and not _c_contiguous(shape, tuple(view.strides)):
        raise InputError(
            "a frame on the GPU must be C-contiguous; copy it first, for example by .contiguous()"
        )
    default = CudaEvent(device)
    default.record(LEGACY_STREAM)
    stream.wait(default)
    ready = CudaEvent(device)
    ready.record(stream)
    return DeviceArray(device, int(view.ptr), shape, dtype, view, ready)


def _c_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return whether strides, in entries, are those of a dense array; ignore axes of length 1."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
