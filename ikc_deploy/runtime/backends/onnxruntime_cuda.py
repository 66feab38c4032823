"""ONNX Runtime on a GPU, with I/O binding to the backend's buffers and stream.

Its CUDA provider takes a stream when a session is created, so every stream has its own sessions.
"""

from __future__ import annotations

import contextlib
import io
import weakref
from collections.abc import Sequence
from typing import Any, Final

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError
from ikc_deploy.onnx_runtime import FOR_GPUS
from ikc_deploy.runtime.backends.base import Binding
from ikc_deploy.runtime.backends.cuda_backend import StreamBoundGraph, device_buffer
from ikc_deploy.runtime.backends.onnx_sessions import BoundSession, load_sessions
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.streams import CudaStream

_PROVIDER: Final = "CUDAExecutionProvider"


class OnnxRuntimeCuda:
    """The runner of `onnxruntime-cuda`."""

    name = "onnxruntime-cuda"

    def __init__(self, bundle: Bundle, device: Device) -> None:
        self._bundle = bundle
        self._device = device
        self._sessions: dict[int, dict[str, Any]] = {}
        self._bound: dict[int, weakref.WeakSet[_StreamBoundSession]] = {}
        _find_libraries()

    def register_stream(self, stream: CudaStream) -> None:
        """Load the graphs for this stream."""
        options = {
            "device_id": str(self._device.ordinal),
            "user_compute_stream": str(stream.handle),
            # float32 means float32, as in our TensorRT engines.
            "use_tf32": "0",
            # Leave memory that the loop does not need to other users of the GPU.
            "arena_extend_strategy": "kSameAsRequested",
        }
        with self._device.current():
            self._sessions[stream.handle] = load_sessions(self._bundle, _PROVIDER, options)
        self._bound[stream.handle] = weakref.WeakSet()

    def unregister_stream(self, stream: CudaStream) -> None:
        """Drop the stream's sessions and what is bound to them: they use the stream."""
        for bound in list(self._bound.pop(stream.handle, ())):
            bound.free()
        with self._device.current():
            self._sessions.pop(stream.handle, None)

    def bind(self, bindings: Sequence[Binding], stream: CudaStream) -> list[StreamBoundGraph]:
        """Bind graphs to the sessions of this stream."""
        sessions = self._sessions[stream.handle]
        bound = [self._bind(sessions[wanted.graph], wanted) for wanted in bindings]
        self._bound[stream.handle].update(bound)
        return list(bound)

    def close(self) -> None:
        """Drop all sessions."""
        with self._device.current():
            self._sessions.clear()

    def _bind(self, session: Any, wanted: Binding) -> _StreamBoundSession:
        import onnxruntime

        binding = session.io_binding()
        pairs = ((binding.bind_input, wanted.inputs), (binding.bind_output, wanted.outputs))
        for bind, buffers in pairs:
            for name, buffer in buffers.items():
                memory = device_buffer(buffer)
                kind = memory.dtype.type
                bind(name, "cuda", self._device.ordinal, kind, memory.shape, memory.address)
        options = onnxruntime.RunOptions()
        # The loop waits once at its end, not after every graph.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        keep = (*wanted.inputs.values(), *wanted.outputs.values())
        return _StreamBoundSession(
            [BoundSession(session, binding, wanted.graph, keep, options)], self._device
        )


class _StreamBoundSession:
    capturable = False
    """False, because ONNX Runtime allocates memory while it runs, which a capture forbids."""

    def __init__(self, things: list[BoundSession], device: Device) -> None:
        self._things = things
        self._device = device
        self.free = device.owned(self, things)

    def enqueue(self) -> None:
        with self._device.current():
            self._things[0].enqueue()


def _find_libraries() -> None:
    """Let ONNX Runtime find CUDA and cuDNN where pip puts them."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise BackendError(
            f"ONNX Runtime is not installed. Install it with: pip install {FOR_GPUS}"
        ) from error
    # It prints which libraries are missing; whether the provider starts is checked later.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
