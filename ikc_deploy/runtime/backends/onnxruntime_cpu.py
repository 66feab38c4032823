"""ONNX Runtime on the CPU. Buffers are numpy arrays; the graphs read and write them in place."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.runtime.backends.base import Binding, BoundGraph
from ikc_deploy.runtime.backends.host_backend import HostBackend, host_array
from ikc_deploy.runtime.backends.onnx_sessions import BoundSession, load_sessions
from ikc_deploy.runtime.backends.openvino_devices import Arithmetic

CPU_PROVIDER: Final = "CPUExecutionProvider"

_X86: Final = ("x86_64", "amd64")
"""Names of x86-64 CPUs in lower case."""


class OnnxRuntimeCpu(HostBackend):
    """The `onnxruntime` backend on the CPU.

    Args:
        sessions: ONNX Runtime's sessions by graph.
        precision: Precision of all operations that the graphs do not quantise.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, sessions: Mapping[str, Any], precision: Arithmetic = "f32") -> None:
        self._sessions = dict(sessions)
        self.precision: Arithmetic = precision
        """Precision of all operations that the graphs do not quantise."""

    @classmethod
    def open(cls, bundle: Bundle, threads: int = 0) -> OnnxRuntimeCpu:
        """Load the graphs of a bundle.

        Args:
            bundle: The opened bundle.
            threads: Number of CPU cores; 0 for all.

        Returns:
            The backend, owned by the caller.

        Raises:
            BackendError: ONNX Runtime is not installed, or cannot load a graph.
            BundleError: A graph was altered or does not match the manifest.
        """
        # ONNX Runtime has float16 kernels only for ARM; elsewhere it casts to float32.
        half = bundle.manifest.precision == "fp16" and platform.machine().lower() not in _X86
        return cls(load_sessions(bundle, CPU_PROVIDER, {}, threads), "f16" if half else "f32")

    def clone(self) -> OnnxRuntimeCpu:
        """Return a backend with the same sessions, which are thread-safe."""
        return OnnxRuntimeCpu(self._sessions, self.precision)

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Bind graphs that run synchronously in the memory of the arrays."""
        return [self._bind(binding) for binding in bindings]

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions.clear()

    def _bind(self, wanted: Binding) -> BoundGraph:
        session = self._sessions[wanted.graph]
        binding = session.io_binding()
        pairs = ((binding.bind_input, wanted.inputs), (binding.bind_output, wanted.outputs))
        for bind, buffers in pairs:
            for name, buffer in buffers.items():
                array = host_array(buffer)
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        keep = (*wanted.inputs.values(), *wanted.outputs.values())
        return BoundSession(session, binding, wanted.graph, keep)
