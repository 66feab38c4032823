"""Kernels of the fake driver: Python functions that its streams call in order.

`GraphsOnFakeCuda` is a runner like those of TensorRT and ONNX Runtime: it queues a bundle's graphs
on a stream. ONNX Runtime's CPU provider computes them, in place, as device memory is host memory.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.backends.base import DEFAULT_CUDA_GRAPH, Binding, CudaGraphUse
from ikc_deploy.runtime.backends.cuda_backend import CudaBackend, StreamBoundGraph, device_buffer
from ikc_deploy.runtime.backends.onnx_sessions import load_sessions
from ikc_deploy.runtime.cuda.device import Device, open_device
from ikc_deploy.runtime.cuda.streams import CudaStream
from tests.fake_cuda.driver import Driver

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Kernel:
    """A function that a stream calls when its turn comes; it must outlive that."""

    def __init__(self, function: Callable[[], object], device: Device) -> None:
        self._function = function
        self._device = device
        self._library = Driver().library
        self._pointer = _HOST_FUNCTION(self._call)

    def _call(self, _: object) -> None:
        self._function()

    def launch(self, handle: int) -> None:
        """Queue it on the stream with this handle."""
        with self._device.current():
            stream = ctypes.c_void_p(handle)
            code = self._library.cuLaunchHostFunc(stream, self._pointer, None)
        if code:
            raise BackendError(f"the fake driver refuses a kernel: {code}")


class GraphsOnFakeCuda:
    """A runner of the graphs of a bundle."""

    name = "fake"

    def __init__(self, bundle: Bundle, device: Device, capturable: bool = True) -> None:
        self._device = device
        self._capturable = capturable
        self._sessions = load_sessions(bundle, "CPUExecutionProvider", {}, threads=1)

    def register_stream(self, stream: CudaStream) -> None:
        """Nothing."""

    def unregister_stream(self, stream: CudaStream) -> None:
        """Nothing."""

    def bind(self, bindings: Sequence[Binding], stream: CudaStream) -> list[StreamBoundGraph]:
        """A kernel for each binding."""
        return [self._bind(wanted, stream) for wanted in bindings]

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions.clear()

    def _bind(self, wanted: Binding, stream: CudaStream) -> StreamBoundGraph:
        run = graph_function(self._sessions[wanted.graph], wanted)
        return _BoundFunction(Kernel(run, self._device), stream, self._capturable, wanted)


def graph_function(session: Any, wanted: Binding) -> Callable[[], None]:
    """A function that computes one graph on device memory."""
    binding = session.io_binding()
    pairs = ((binding.bind_input, wanted.inputs), (binding.bind_output, wanted.outputs))
    for bind, buffers in pairs:
        for name, buffer in buffers.items():
            memory = device_buffer(buffer)
            bind(name, "cpu", 0, memory.dtype.type, memory.shape, memory.address)

    def run() -> None:
        # Whatever is not waited for shows, as results come late.
        time.sleep(0.002)
        session.run_with_iobinding(binding)

    return run


class _BoundFunction:
    def __init__(self, kernel: Kernel, stream: CudaStream, capturable: bool, keep: Binding) -> None:
        self.capturable = capturable
        self._kernel, self._stream = kernel, stream
        # Kernels know raw addresses only.
        self._keep = keep

    def enqueue(self) -> None:
        self._kernel.launch(self._stream.handle)


def open_fake_cuda(
    bundle: Bundle,
    capturable: bool = True,
    cuda_graph: CudaGraphUse = DEFAULT_CUDA_GRAPH,
    ordinal: int = 0,
) -> CudaBackend:
    """A backend on a device of the fake driver."""
    device = open_device(ordinal)
    return CudaBackend(GraphsOnFakeCuda(bundle, device, capturable), device, cuda_graph)
