"""CUDA graphs: what is queued on a stream, recorded once and then launched as a whole."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import checked, cuda_bindings
from ikc_deploy.runtime.cuda.streams import CudaStream


class CudaGraph:
    """Recorded work. What it reads and writes must live as long as it does."""

    def __init__(self, stream: CudaStream, executable: Any) -> None:
        self._stream = stream
        self._executable = executable
        self.free = weakref.finalize(self, _destroy, stream.device, executable)

    def launch(self) -> None:
        """Queue all of it on the stream that it was recorded from."""
        with self._stream.device.current():
            answer = cuda_bindings().cuGraphLaunch(self._executable, self._stream.handle)
            checked(answer, "launch a graph")


def capture(stream: CudaStream, queue: Callable[[], None]) -> CudaGraph:
    """Record what `queue` puts on the stream, without running it.

    The mode is thread-local: allocations by other threads do not break it, its own do. Raises
    `BackendError` if the driver refuses, and whatever `queue` raises; the stream is usable again.
    """
    bindings = cuda_bindings()
    mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    with stream.device.current():
        checked(bindings.cuStreamBeginCapture(stream.handle, mode), "record a graph")
        stream.capturing = True
        try:
            queue()
        except BaseException:
            # Else the stream would go on recording. The answer no longer matters.
            status, unfinished = bindings.cuStreamEndCapture(stream.handle)
            if status.value == 0 and int(unfinished):
                bindings.cuGraphDestroy(unfinished)
            raise
        finally:
            stream.capturing = False
        graph = checked(bindings.cuStreamEndCapture(stream.handle), "record a graph")
        try:
            executable = checked(bindings.cuGraphInstantiate(graph, 0), "make a recorded graph run")
        finally:
            checked(bindings.cuGraphDestroy(graph), "free a graph")
        made = CudaGraph(stream, executable)
        try:
            # Or the first launch would do it.
            checked(bindings.cuGraphUpload(executable, stream.handle), "load a graph")
        except BackendError:
            made.free()
            raise
    return made


def _destroy(device: Device, executable: Any) -> None:
    with device.current():
        checked(cuda_bindings().cuGraphExecDestroy(executable), "free a graph")
