"""Device memory, and pinned host memory, which asynchronous copies need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import pycuda_driver, pycuda_errors


class DeviceBuffer:
    """Uninitialised, C-contiguous memory on the device for one tensor.

    Args:
        device: GPU that holds the memory.
        shape: Shape of the tensor.
        dtype: Type of its entries.

    Raises:
        OutOfMemoryError: The device has too little memory.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.device = device
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        with device.current(), pycuda_errors(f"allocate {self.nbytes:,} bytes"):
            # CUDA refuses an allocation of 0 bytes.
            allocation = pycuda_driver().mem_alloc(max(1, self.nbytes))
            self.address = int(allocation)
            self.free = device.owned(self, [allocation])
            del allocation


class PinnedBuffer:
    """Page-locked host memory for one tensor; use `array` for copies only.

    Args:
        device: GPU from and to which it is copied.
        shape: Shape of the tensor.
        dtype: Type of its entries.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._things: list[Any] = []
        with device.current(), pycuda_errors(f"pin {size:,} bytes of host memory"):
            self._things.append(pycuda_driver().pagelocked_empty(shape, dtype))
        self.free = device.owned(self, self._things)

    @property
    def array(self) -> NDArray[Any]:
        """Array in the memory. If it outlives the buffer, the memory leaks."""
        array: NDArray[Any] = self._things[0]
        return array
