"""CUDA streams, on which work runs in order, and events, which mark points on them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.cuda.buffers import DeviceBuffer, PinnedBuffer
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import checked, cuda_bindings, pycuda_driver, pycuda_errors
from ikc_deploy.runtime.cuda.rectangles import Rectangle

_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default one, which torch and others use;
a capture would otherwise break as soon as they do."""


@dataclass(frozen=True)
class ForeignStream:
    """A stream of another library."""

    handle: int
    """CUstream handle."""
    capturing = False


LEGACY_STREAM: Final = ForeignStream(1)
"""The legacy default stream. Work that is queued there waits for all blocking streams. Libraries
whose arrays name no stream queue their work there."""


class OnDevice(Protocol):
    """An object in device memory."""

    @property
    def address(self) -> int:
        """Address of its first byte."""


class CudaStream:
    """A queue of work on the device, independent of all others.

    Args:
        device: GPU that runs the work.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.capturing = False
        """Whether `ikc_deploy.runtime.cuda.cuda_graphs` captures the work instead of running it."""
        self._things: list[Any] = []
        with device.current(), pycuda_errors("create a stream"):
            self._things.append(pycuda_driver().Stream(_NON_BLOCKING))
        self.handle: int = self._things[0].handle
        """CUstream handle, for other libraries."""
        self.free = device.owned(self, self._things)

    def upload(self, source: PinnedBuffer, target: DeviceBuffer) -> None:
        """Queue a copy to the device; `source` must not change until the copy is complete."""
        with self.device.current(), pycuda_errors("copy a frame to the GPU"):
            driver = pycuda_driver()
            driver.memcpy_htod_async(target.address, source.array, self._things[0])

    def download(self, source: OnDevice, target: PinnedBuffer) -> None:
        """Queue a copy to the host."""
        with self.device.current(), pycuda_errors("copy a frame from the GPU"):
            driver = pycuda_driver()
            driver.memcpy_dtoh_async(target.array, source.address, self._things[0])

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Queue a copy of `nbytes` bytes between two addresses of the device."""
        with self.device.current(), pycuda_errors("copy a frame on the GPU"):
            pycuda_driver().memcpy_dtod_async(target, source, nbytes, self._things[0])

    def copy_rectangle(self, rectangle: Rectangle) -> None:
        """Queue a copy of a rectangle of the device's memory."""
        with self.device.current(), pycuda_errors("copy a part of a frame on the GPU"):
            copy = pycuda_driver().Memcpy2D()
            copy.set_src_device(rectangle.source)
            copy.set_dst_device(rectangle.target)
            copy.src_pitch, copy.dst_pitch = rectangle.source_pitch, rectangle.target_pitch
            copy.width_in_bytes, copy.height = rectangle.width, rectangle.height
            copy(self._things[0])

    def clear(self, target: DeviceBuffer) -> None:
        """Queue zeros for all bytes of device memory."""
        with self.device.current(), pycuda_errors("clear memory of the GPU"):
            driver = pycuda_driver()
            driver.memset_d8_async(target.address, 0, target.nbytes, self._things[0])

    def wait(self, event: CudaEvent) -> None:
        """Let all work that is queued later wait until `event` is reached."""
        with self.device.current():
            answer = cuda_bindings().cuStreamWaitEvent(self.handle, event.handle, 0)
            checked(answer, "wait for an event")

    def synchronize(self) -> None:
        """Wait until all queued work is complete.

        Raises:
            BackendError: Some of the work failed.
        """
        with self.device.current(), pycuda_errors("finish the work that was queued"):
            self._things[0].synchronize()


class CudaEvent:
    """A point on a stream with its time. In a captured graph, every launch reaches it.

    Args:
        device: GPU on whose streams it is recorded.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        with device.current():
            self.handle = checked(cuda_bindings().cuEventCreate(0), "create an event")
        self.free = weakref.finalize(self, _destroy_event, device, self.handle)

    def record(self, stream: CudaStream | ForeignStream) -> None:
        """Place the event at the end of the work that is queued on `stream`."""
        bindings = cuda_bindings()
        flags = bindings.CUevent_record_flags
        # Without the flag, an event inside a capture has no time and cannot be read.
        flag = flags.CU_EVENT_RECORD_EXTERNAL if stream.capturing else flags.CU_EVENT_RECORD_DEFAULT
        with self.device.current():
            answer = bindings.cuEventRecordWithFlags(self.handle, stream.handle, flag)
            checked(answer, "record an event")

    def synchronize(self) -> None:
        """Wait until the device has reached the event."""
        with self.device.current():
            checked(cuda_bindings().cuEventSynchronize(self.handle), "wait for an event")

    def elapsed_ms(self, later: CudaEvent) -> float:
        """Return milliseconds from this event to `later`; the device must have reached both."""
        with self.device.current():
            answer = cuda_bindings().cuEventElapsedTime(self.handle, later.handle)
            return float(checked(answer, "read the time of an event"))


def _destroy_event(device: Device, handle: Any) -> None:
    if device.forked:
        return
    with device.current():
        checked(cuda_bindings().cuEventDestroy(handle), "free an event")


def to_host(stream: CudaStream, source: OnDevice, staging: PinnedBuffer) -> NDArray[Any]:
    """Wait for all queued work, and return a new host array with the content of `source`.

    Args:
        stream: Stream of the copy.
        source: Device memory of the shape and dtype of `staging`.
        staging: Pinned memory that the copy goes through.

    Returns:
        The array, owned by the caller.

    Raises:
        BackendError: Some of the queued work failed.
    """
    stream.download(source, staging)
    stream.synchronize()
    return np.array(staging.array)
