"""`DeviceArray`: frames of other libraries in GPU memory, and images that we return there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.runtime.cuda.buffers import PinnedBuffer
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import memory_view, pycuda_driver, pycuda_errors
from ikc_deploy.runtime.cuda.streams import CudaEvent, CudaStream, to_host


class DeviceArray:
    """A C-contiguous array in GPU memory.

    Other libraries read it without a copy, by `__cuda_array_interface__` or DLPack:
    `torch.from_dlpack(image)`, `cupy.asarray(image)`, `numba.cuda.as_cuda_array(image)`. Their
    arrays keep it alive. An array that a call returns is complete: there is nothing to wait for.
    Its memory is reused once nothing refers to it any more, so synchronize your own work on it
    before you drop it.
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
        """Event that is reached when the content is complete; None if it is complete."""
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
        return self.shape[0]

    def __getitem__(self, index: int) -> DeviceArray:
        """Return an entry of the first axis, in the same memory.

        Raises:
            IndexError: There is no such entry.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside of {len(self)} entries")
        rest = self.shape[1:]
        offset = index % len(self) * math.prod(rest) * self.dtype.itemsize
        return DeviceArray(
            self.device, self.address + offset, rest, self.dtype, self._keep, self.ready
        )

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        """Return the same memory with another shape.

        Raises:
            InputError: The number of entries differs.
        """
        if math.prod(shape) != math.prod(self.shape):
            raise InputError(f"{list(self.shape)} cannot be reshaped to {list(shape)}")
        return DeviceArray(self.device, self.address, shape, self.dtype, self._keep, self.ready)

    def to_numpy(self) -> NDArray[Any]:
        """Return a copy in host memory, after the content is complete."""
        stream = CudaStream(self.device)
        if self.ready is not None:
            stream.wait(self.ready)
        staging = PinnedBuffer(self.device, self.shape, self.dtype)
        return to_host(stream, self, staging)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            # None: complete already, so that there is nothing to wait for.
            "stream": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._view().__dlpack_device__()

    def __dlpack__(self, **options: Any) -> object:
        # A consumer's stream has nothing to wait for.
        options["stream"] = None
        return self._view().__dlpack__(**options)

    def _view(self) -> Any:
        return memory_view().from_cuda_array_interface(self, stream_ptr=-1)


class DeviceMemoryPool:
    """A pool of device memory for results; it keeps freed blocks and uses them again."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._things: list[Any] = []
        with device.current(), pycuda_errors("create a memory pool"):
            self._things.append(pycuda_driver().DeviceMemoryPool())
        self.free = device.owned(self, self._things)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Return a new array with uninitialised memory.

        Raises:
            OutOfMemoryError: The device has too little memory.
        """
        size = math.prod(shape) * dtype.itemsize
        block = _PoolBlock()
        with self._device.current(), pycuda_errors(f"allocate {size:,} bytes for a result"):
            allocation = self._things[0].allocate(size)
            address = int(allocation)
            self._device.owned(block, [allocation])
            del allocation
        return DeviceArray(self._device, address, shape, dtype, block)

    def stop(self) -> None:
        """Free unused blocks; blocks in use are freed when their arrays are dropped."""
        with self._device.current():
            self._things[0].stop_holding()


class _PoolBlock:
    """The owner of a block of the pool, which returns when this object is dropped."""


def from_dlpack(frame: object, device: Device, stream: CudaStream) -> DeviceArray:
    """Return another library's array as a `DeviceArray`, without a copy.

    If the array specifies its stream (by DLPack, or in `__cuda_array_interface__`), the GPU waits
    for the work that is queued there, and the caller does not. Call this in the thread that created
    the array.

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
