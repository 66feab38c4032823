"""ONNX Runtime on the CPU. Buffers are numpy arrays; the graphs read and write them in place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ikc_deploy.bundle import GRAPHS, Bundle
from ikc_deploy.errors import BackendError, OutOfMemoryError
from ikc_deploy.runtime.backends.base import Buffer, Call

_PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeCpu:
    """The `onnxruntime` backend on the CPU; `threads` is the number of cores to use, 0 for all."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise BackendError(
                "the backend 'onnxruntime' needs the module onnxruntime. Install it with: "
                "pip install onnxruntime-gpu"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Errors arrive as exceptions; printed as well, they would come twice.
        options.log_severity_level = 4
        # Three sessions take turns: a pool that spins while another computes takes its cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions: dict[str, Any] = {}
        for graph in GRAPHS:
            try:
                session = onnxruntime.InferenceSession(
                    str(bundle.graph(graph)), options, providers=[_PROVIDER]
                )
            except Exception as error:  # onnxruntime's exceptions share no base of their own
                raise BackendError(
                    f"ONNX Runtime cannot load '{bundle.graph(graph)}': {error}"
                ) from error
            if session.get_providers() != [_PROVIDER]:
                raise BackendError(
                    f"ONNX Runtime gave {session.get_providers()} where {_PROVIDER} was asked for"
                )
            self._sessions[graph] = session

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """A numpy array."""
        try:
            return np.zeros(shape, dtype)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"not enough memory for a buffer of shape {list(shape)}; use smaller tiles"
            ) from error

    def bind(self, graph: str, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Call:
        """A call that runs synchronously on the arrays' own memory."""
        session = self._sessions[graph]
        binding = session.io_binding()
        for bind, buffers in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, buffer in buffers.items():
                array = _array(buffer)
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return _BoundCall(session, binding, graph, (*inputs.values(), *outputs.values()))

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy into the buffer's array."""
        np.copyto(_array(buffer), array, casting="no")

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """A copy of the buffer's array."""
        return _array(buffer).copy()

    def mark(self) -> object:
        """Now, as calls run synchronously."""
        return time.perf_counter()

    def elapsed_ms(self, start: object, end: object) -> float:
        """Difference of two marks."""
        return 1e3 * (cast(float, end) - cast(float, start))

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions.clear()


class _BoundCall:
    def __init__(self, session: Any, binding: Any, graph: str, keep: tuple[Buffer, ...]) -> None:
        self._session, self._binding, self._graph = session, binding, graph
        # The binding holds raw addresses, so the arrays must live as long as it does.
        self._keep = keep

    def enqueue(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            if "allocate memory" in str(error):
                raise OutOfMemoryError(
                    f"not enough memory for the {self._graph} at this frame size; use smaller tiles"
                ) from error
            raise BackendError(f"ONNX Runtime failed in the {self._graph}: {error}") from error


def _array(buffer: Buffer) -> NDArray[Any]:
    return cast("NDArray[Any]", buffer)
