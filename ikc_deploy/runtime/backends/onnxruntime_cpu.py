"""ONNX Runtime on the CPU. Buffers are numpy arrays; the graphs read and write them in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Never, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError, InputError, OutOfMemoryError
from ikc_deploy.runtime.backends.base import Binding, BoundGraph, Buffer, CapturedGraph, Event
from ikc_deploy.runtime.backends.onnx_sessions import BoundSession, load_sessions

CPU_PROVIDER: Final = "CPUExecutionProvider"


class OnnxRuntimeCpu:
    """The `onnxruntime` backend on the CPU."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, sessions: Mapping[str, Any]) -> None:
        self._sessions = dict(sessions)

    @classmethod
    def open(cls, bundle: Bundle, threads: int = 0) -> OnnxRuntimeCpu:
        """Load the graphs of a bundle.

        Args:
            bundle: The opened bundle.
            threads: Number of CPU cores; 0 for all.

        Returns:
            The backend, owned by the caller.

        Raises:
            BackendError: ONNX Runtime is not installed or does not load a graph.
            BundleError: A graph was altered or does not match the manifest.
        """
        return cls(load_sessions(bundle, CPU_PROVIDER, {}, threads))

    def clone(self) -> OnnxRuntimeCpu:
        """Return a backend with the same sessions, which any number of threads may run."""
        return OnnxRuntimeCpu(self._sessions)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Allocate a numpy array."""
        try:
            return np.zeros(shape, dtype)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"not enough memory for a buffer of shape {list(shape)}; "
                "use smaller frames or tiles"
            ) from error

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Bind graphs that run synchronously in the memory of the arrays."""
        return [self._bind(binding) for binding in bindings]

    def from_dlpack(self, frame: object) -> Never:
        """Refuse the frame: this backend reads host memory only."""
        raise InputError(
            f"a frame of type {type(frame).__name__} in GPU memory needs a backend on that GPU, "
            "and this one runs on the CPU; copy the frame to numpy, or choose another backend"
        )

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy into the buffer's array."""
        np.copyto(_array(buffer), array, casting="no")

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """Return a copy of the buffer's array."""
        return _array(buffer).copy()

    def copy_to_device_array(self, buffer: Buffer) -> Never:  # noqa: ARG002
        """Refuse, as this backend has no device memory."""
        raise BackendError("the backend 'onnxruntime' has no device memory")

    def create_event(self) -> Event:
        """Return an event that reads the host's clock, as graphs run synchronously."""
        return _HostEvent()

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return milliseconds between two events."""
        return 1e3 * (cast(_HostEvent, end).time - cast(_HostEvent, start).time)

    def capture(
        self,
        graphs: Sequence[BoundGraph],  # noqa: ARG002
        queue: Callable[[], None],  # noqa: ARG002
    ) -> CapturedGraph | None:
        """Return None: graphs run one by one."""
        return None

    def synchronize(self) -> None:
        """Return at once: graphs run synchronously."""

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions.clear()

    def _bind(self, wanted: Binding) -> BoundGraph:
        session = self._sessions[wanted.graph]
        binding = session.io_binding()
        pairs = ((binding.bind_input, wanted.inputs), (binding.bind_output, wanted.outputs))
        for bind, buffers in pairs:
            for name, buffer in buffers.items():
                array = _array(buffer)
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        keep = (*wanted.inputs.values(), *wanted.outputs.values())
        return BoundSession(session, binding, wanted.graph, keep)


class _HostEvent:
    def __init__(self) -> None:
        self.time = 0.0

    def record(self) -> None:
        self.time = time.perf_counter()


def _array(buffer: Buffer) -> NDArray[Any]:
    return cast("NDArray[Any]", buffer)
