"""CUDA graphs: work that is captured from a stream once and then launched as a whole."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import checked, cuda_bindings
from ikc_deploy.runtime.cuda.streams import CudaStream


class CudaGraph:
    """A captured CUDA graph. The memory that it reads and writes must live as long as it does.

    Args:
        stream: Stream from which the work was captured.
        executable: Handle of the instantiated graph; this object owns it.
    """

    def __init__(self, stream: CudaStream, executable: Any) -> None:
        self._stream = stream
        self._executable = executable
        self.free = weakref.finalize(self, _destroy, stream.device, executable)

    def launch(self) -> None:
        """Queue all of the work on the stream from which it was captured.

        Raises:
            BackendError: The driver refuses.
        """
        with self._stream.device.current():
            answer = cuda_bindings().cuGraphLaunch(self._executable, self._stream.handle)
            checked(answer, "launch a graph")


def capture(stream: CudaStream, queue: Callable[[], None]) -> CudaGraph:
    """Capture the work that a function queues on a stream, without running it.

    The capture mode is thread-local: allocations in this thread break the capture, those in other
    threads do not.

    Args:
        stream: The stream.
        queue: A function that queues work on it.

    Returns:
        The graph, ready to launch.

    Raises:
        BackendError: The driver refuses. The stream can be used again.
        Exception: The exception of `queue`. The stream can be used again.
    """
    collects = gc.isenabled()
    # Python's garbage collector may free memory of other libraries, which breaks a capture.
    gc.disable()
    try:
        return _capture(stream, queue)
    finally:
        if collects:
            gc.enable()


def _capture(stream: CudaStream, queue: Callable[[], None]) -> CudaGraph:
    bindings = cuda_bindings()
    mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    with stream.device.current():
        checked(bindings.cuStreamBeginCapture(stream.handle, mode), "record a graph")
        stream.capturing = True
        try:
            queue()
        except BaseException:
            # Otherwise the stream would remain in capture mode. Ignore further errors.
            status, unfinished = bindings.cuStreamEndCapture(stream.handle)
            if status.value == 0 and int(unfinished):
                bindings.cuGraphDestroy(unfinished)
            raise
        finally:
            stream.capturing = False
        graph = checked(bindings.cuStreamEndCapture(stream.handle), "record a graph")
        try:
            executable = checked(bindings.cuGraphInstantiate(graph, 0), "instantiate a graph")
        finally:
            checked(bindings.cuGraphDestroy(graph), "free a graph")
        made = CudaGraph(stream, executable)
        try:
            # Otherwise the first launch would include the upload.
            checked(bindings.cuGraphUpload(executable, stream.handle), "load a graph")
        except BackendError:
            made.free()
            raise
    return made


def _destroy(device: Device, executable: Any) -> None:
    if device.forked:
        return
    with device.current():
        checked(cuda_bindings().cuGraphExecDestroy(executable), "free a graph")
