"""Loading of a bundle's graphs into ONNX Runtime with exactly one execution provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError, BundleError, OutOfMemoryError
from ikc_deploy.onnx_runtime import distribution
from ikc_deploy.runtime.backends.base import Buffer
from ikc_deploy.runtime.frames import MIN_SIDE, FrameShape
from ikc_deploy.runtime.onnx_files import read_graph
from ikc_deploy.runtime.signatures import Signature, Tensor, check_signature, signature

EXACT_INT8: Final = ("session.x64quantprecision", "1")
"""Session configuration for exact INT8 arithmetic. Without it, x86 CPUs without VNNI instructions
accumulate 8-bit products in 16 bits, which overflows silently."""

_NO_CPU_NODES: Final = ("session.disable_cpu_ep_fallback", "1")
"""Session configuration that rejects graphs with operators that the provider lacks."""
_CPU: Final = "CPUExecutionProvider"

_DTYPES: Final = {
    f"tensor({name})": np.dtype(kind)
    for name, kind in {
        "float": np.float32,
        "float16": np.float16,
        "double": np.float64,
        "uint8": np.uint8,
        "int8": np.int8,
        "int64": np.int64,
    }.items()
}
"""Data types by ONNX Runtime's type names."""


def load_sessions(
    bundle: Bundle,
    provider: str,
    options: Mapping[str, str],
    threads: int = 0,
    graphs: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Load graphs of a bundle into ONNX Runtime.

    Args:
        bundle: The opened bundle.
        provider: The execution provider. ONNX Runtime's silent fallback to others is disabled.
        options: Options of the provider.
        threads: Number of CPU cores; 0 for all.
        graphs: Names of the graphs; None for those of the bundle's loop.

    Returns:
        An `InferenceSession` per graph, by name.

    Raises:
        BackendError: ONNX Runtime is not installed, cannot load a graph, or would use another
            provider.
        BundleError: A graph was altered, has external tensors, or does not have the inputs and
            outputs that the manifest specifies.
    """
    settings = _session_options(provider, threads)
    names = bundle.loop.graphs if graphs is None else graphs
    return {graph: _load(bundle, graph, provider, options, settings) for graph in names}


def _session_options(provider: str, threads: int) -> Any:
    """Return the `SessionOptions` of all sessions of a bundle.

    Raises `BackendError` if ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise BackendError(
            f"ONNX Runtime is not installed. Install it with: pip install {distribution()}"
        ) from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    # Errors are raised as exceptions, so they need not be printed.
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    settings.add_session_config_entry(*EXACT_INT8)
    # The sessions run alternately: a spinning thread pool would occupy the cores of the others.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider == _CPU:
        # They also share memory: a common arena that allocates on demand instead of by a plan
        # needs a third of the memory, and no more time (measured).
        settings.enable_mem_pattern = False
        settings.add_session_config_entry("session.use_env_allocators", "1")
        _share_arena()
    else:
        # Otherwise unsupported nodes would silently run on the CPU.
        settings.add_session_config_entry(*_NO_CPU_NODES)
    return settings


def _load(
    bundle: Bundle, graph: str, provider: str, options: Mapping[str, str], settings: Any
) -> Any:
    """Return the `InferenceSession` of one graph; see `load_sessions`."""
    import onnxruntime

    model = read_graph(bundle, graph)
    try:
        session = onnxruntime.InferenceSession(
            model, settings, providers=[(provider, dict(options))]
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BackendError(_refusal(bundle.graph(graph), provider, error)) from error
    # Otherwise a failed run would silently be repeated by the CPU provider.
    session.disable_fallback()
    given = session.get_providers()
    if given[0] != provider:
        raise BackendError(
            f"ONNX Runtime uses {', '.join(given)} instead of {provider}; "
            "run ikc-doctor for the reason"
        )
    check_signature(bundle, graph, _signature(session))
    if graph == bundle.loop.image.name and provider == _CPU:
        _check_scale(bundle, session)
    return session


def _refusal(path: Path, provider: str, error: Exception) -> str:
    if "fallback to CPU EP has been explicitly disabled" in str(error):
        return (
            f"ONNX Runtime would run nodes of '{path}' on the CPU, which is refused: {provider} "
            "does not start here (run ikc-doctor for the reason), or lacks one of their operators "
            "(export the bundle in another precision); or choose the backend onnxruntime"
        )
    return f"ONNX Runtime cannot load '{path}': {error}"


def _signature(session: Any) -> Signature:
    """Return the inputs and outputs of a session's graph."""

    def tensors(values: Any) -> dict[str, Tensor]:
        return {
            value.name: Tensor(
                _DTYPES.get(value.type, np.dtype(object)),
                tuple(size if isinstance(size, int) else None for size in value.shape),
            )
            for value in values
        }

    return Signature(tensors(session.get_inputs()), tensors(session.get_outputs()))


def _check_scale(bundle: Bundle, session: Any) -> None:
    """Check the manifest's scale by running the smallest frame.

    On a GPU, where this would take longer, ONNX Runtime detects an error with the first frame.
    """
    shape, graph = FrameShape(1, MIN_SIDE, MIN_SIDE), bundle.loop.image.name
    taken = signature(bundle, graph, shape)
    feed = {
        name: np.zeros([size or 1 for size in tensor.shape], tensor.dtype)
        for name, tensor in taken.inputs.items()
    }
    names = list(taken.outputs)
    try:
        found = dict(zip(names, session.run(names, feed), strict=True))
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BundleError(
            f"the {graph} of '{bundle.path}' does not run on a frame of {MIN_SIDE}x"
            f"{MIN_SIDE}: {error}"
        ) from error
    outputs = {name: Tensor(array.dtype, array.shape) for name, array in found.items()}
    check_signature(bundle, graph, Signature(taken.inputs, outputs), shape)


@cache
def _share_arena() -> None:
    """Register the arena that all sessions of this process share, permanently."""
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # Unlimited, with ONNX Runtime's defaults for growth and block size.
    settings = onnxruntime.OrtArenaCfg(0, -1, -1, -1)
    onnxruntime.create_and_register_allocator(place, settings)


class BoundSession:
    """One graph bound to buffers through ONNX Runtime's I/O binding."""

    def __init__(
        self, session: Any, binding: Any, graph: str, keep: Sequence[Buffer], options: Any = None
    ) -> None:
        self._session, self._binding, self._graph = session, binding, graph
        self._options = options
        # The binding holds raw addresses, so the buffers must live as long as it does.
        self._keep = tuple(keep)

    def enqueue(self) -> None:
        """Run the graph, or queue it if the provider is asynchronous.

        Raises:
            BackendError: ONNX Runtime failed.
            OutOfMemoryError: The device has too little memory.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            if "allocate memory" in str(error):
                raise OutOfMemoryError(
                    f"not enough memory for the {self._graph} at this frame size; "
                    "use smaller frames or tiles"
                ) from error
            raise BackendError(f"ONNX Runtime failed in the {self._graph}: {error}") from error
