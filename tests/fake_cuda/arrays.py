"""Arrays of another library on the device, with work of that library still to come."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
from cuda.core.utils import StridedMemoryView
from numpy.typing import NDArray

from ikc_deploy.runtime.cuda.arrays import DeviceArray
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer, PinnedBuffer
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.streams import LEGACY_STREAM, CudaStream
from tests.fake_cuda.kernels import Kernel


class Foreign:
    """Device memory with `content`, which comes there after `delay` if one is given."""

    def __init__(
        self, device: Device, content: NDArray[Any], stream: CudaStream, delay: Kernel | None = None
    ) -> None:
        self.buffer = DeviceBuffer(device, content.shape, content.dtype)
        self._source = PinnedBuffer(device, content.shape, content.dtype)
        self._source.array[...] = content
        self._stream = stream
        self._delay = delay
        if delay is not None:
            delay.launch(stream.handle)
        stream.upload(self._source, self.buffer)
        if delay is None:
            stream.synchronize()


class WithInterface(Foreign):
    """Speaks `__cuda_array_interface__`, as Numba does."""

    strides: tuple[int, ...] | None = None
    """In bytes."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.buffer.shape,
            "typestr": self.buffer.dtype.str,
            "data": (self.buffer.address, False),
            "strides": self.strides,
            "stream": self._stream.handle,
        }


class WithDlpack(Foreign):
    """Speaks DLPack, as torch does: it lets the consumer's stream wait for its own."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> object:
        assert stream is not None and stream > 2, "a consumer must name its stream"
        view = StridedMemoryView.from_cuda_array_interface(
            _Interface(self.buffer, self._stream.handle), stream_ptr=stream
        )
        return view.__dlpack__(**options)


class _Interface:
    def __init__(self, buffer: DeviceBuffer, stream: int) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": buffer.shape,
            "typestr": np.dtype(buffer.dtype).str,
            "data": (buffer.address, False),
            "strides": None,
            "stream": stream,
        }


class Unnamed:
    """Memory that the legacy default stream writes late, in an array that names no stream."""

    def __init__(self, device: Device, content: NDArray[Any]) -> None:
        self._buffer = DeviceBuffer(device, content.shape, content.dtype)

        def write() -> None:
            time.sleep(0.1)
            ctypes.memmove(self._buffer.address, content.tobytes(), content.nbytes)

        self._write = Kernel(write, device)
        self._write.launch(LEGACY_STREAM.handle)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface: dict[str, Any] = _Interface(self._buffer, 0).__cuda_array_interface__
        return interface | {"stream": None}


class LateReader:
    """A library that reads an array by DLPack on its own stream, after other work."""

    def __init__(self, image: DeviceArray) -> None:
        self._stream = CudaStream(image.device)
        self._read = np.zeros(image.shape, image.dtype)
        address, nbytes = image.address, image.nbytes

        def read() -> None:
            time.sleep(0.1)
            ctypes.memmove(self._read.ctypes.data, address, nbytes)

        image.__dlpack__(stream=self._stream.handle)
        self._kernel = Kernel(read, image.device)
        self._kernel.launch(self._stream.handle)

    def __call__(self) -> NDArray[Any]:
        """Return what was read."""
        self._stream.synchronize()
        return self._read
