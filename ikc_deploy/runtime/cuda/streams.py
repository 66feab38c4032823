"""Streams, along which work runs in order, and events, which are points on them."""

from __future__ import annotations

import weakref
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.cuda.buffers import DeviceBuffer, PinnedBuffer
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import checked, cuda_bindings, pycuda_driver, pycuda_errors

_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default one, which torch and others use;
a capture would otherwise break as soon as they do."""


class OnDevice(Protocol):
    """Something in device memory."""

    @property
    def address(self) -> int:
        """Where it begins."""


class CudaStream:
    """A queue of work on the device, apart from all others."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.capturing = False
        """True while `ikc_deploy.runtime.cuda.cuda_graphs` records instead of running."""
        self._things: list[Any] = []
        with device.current(), pycuda_errors("make a stream"):
            self._things.append(pycuda_driver().Stream(_NON_BLOCKING))
        self.handle: int = self._things[0].handle
        """The CUstream, for other libraries."""
        self.free = device.owned(self, self._things)

    def upload(self, source: PinnedBuffer, target: DeviceBuffer) -> None:
        """Queue a copy to the device; `source` must stay as it is until it is done."""
        with self.device.current(), pycuda_errors("copy a frame to the GPU"):
            driver = pycuda_driver()
            driver.memcpy_htod_async(target.address, source.array, self._things[0])

    def download(self, source: OnDevice, target: PinnedBuffer) -> None:
        """Queue a copy to the host."""
        with self.device.current(), pycuda_errors("copy a frame from the GPU"):
            driver = pycuda_driver()
            driver.memcpy_dtoh_async(target.array, source.address, self._things[0])

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Queue a copy between two addresses of the device."""
        with self.device.current(), pycuda_errors("copy a frame on the GPU"):
            pycuda_driver().memcpy_dtod_async(target, source, nbytes, self._things[0])

    def wait(self, event: CudaEvent) -> None:
        """Let all that is queued from now on wait until `event` is reached."""
        with self.device.current():
            answer = cuda_bindings().cuStreamWaitEvent(self.handle, event.handle, 0)
            checked(answer, "wait for an event")

    def synchronize(self) -> None:
        """Wait until everything queued is done. Raises `BackendError` if some of it failed."""
        with self.device.current(), pycuda_errors("finish the work that was queued"):
            self._things[0].synchronize()


class CudaEvent:
    """A point on a stream, with its time. In a recorded graph it is reached by every launch."""

    def __init__(self, device: Device) -> None:
        self.device = device
        with device.current():
            self.handle = checked(cuda_bindings().cuEventCreate(0), "make an event")
        self.free = weakref.finalize(self, _destroy_event, device, self.handle)

    def record(self, stream: CudaStream) -> None:
        """Put it at the end of what is queued on `stream`."""
        bindings = cuda_bindings()
        flags = bindings.CUevent_record_flags
        # Without the flag, an event inside a capture is no point in time and cannot be read.
        flag = flags.CU_EVENT_RECORD_EXTERNAL if stream.capturing else flags.CU_EVENT_RECORD_DEFAULT
        with self.device.current():
            answer = bindings.cuEventRecordWithFlags(self.handle, stream.handle, flag)
            checked(answer, "record an event")

    def synchronize(self) -> None:
        """Wait until the device has reached it."""
        with self.device.current():
            checked(cuda_bindings().cuEventSynchronize(self.handle), "wait for an event")

    def elapsed_ms(self, later: CudaEvent) -> float:
        """Milliseconds from this event to `later`; the device must have reached both."""
        with self.device.current():
            answer = cuda_bindings().cuEventElapsedTime(self.handle, later.handle)
            return float(checked(answer, "read the time of an event"))


def _destroy_event(device: Device, handle: Any) -> None:
    with device.current():
        checked(cuda_bindings().cuEventDestroy(handle), "free an event")


def to_host(stream: CudaStream, source: OnDevice, staging: PinnedBuffer) -> NDArray[Any]:
    """A new host array with the source's content, once all that was queued before is done."""
    stream.download(source, staging)
    stream.synchronize()
    return np.array(staging.array)
