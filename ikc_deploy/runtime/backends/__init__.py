"""Backends, which run the three graphs of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ikc_deploy.arguments import whole_number
from ikc_deploy.bundle.engine_store import read_engines
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS, TensorRTVariantName
from ikc_deploy.errors import BackendError, EngineError
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.text import shown

BACKENDS: Final = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime")
"""Names of the backends, best first."""

CPU_BACKEND: Final = "onnxruntime"
"""Name of the backend that runs on every machine."""


def open_backend(
    name: str, bundle: Bundle, threads: int = 0, *, cuda_graph: bool = True
) -> Backend:
    """Open a backend for the graphs of a bundle.

    A named backend is never replaced by another.

    Args:
        name: One of `BACKENDS`, or "auto" for the best that loads.
        bundle: The opened bundle.
        threads: Number of CPU cores for CPU backends; 0 for all.
        cuda_graph: Whether GPU backends capture the loop as one CUDA graph. False launches each
            network separately.

    Returns:
        The backend, owned by the caller, who closes it.

    Raises:
        InputError: `threads` is invalid.
        BackendError: The name is unknown, or the backend does not run on this machine.
        EngineError: The backend needs an engine, and the bundle has none for this machine.
    """
    if not isinstance(name, str) or name not in ("auto", *BACKENDS):
        raise BackendError(
            f"invalid backend {shown(name)}: expected one of auto, {', '.join(BACKENDS)}"
        )
    threads = whole_number(threads, "threads", 0, " (0: all cores)")
    if name == "auto":
        return choose_backend(bundle, threads, cuda_graph=cuda_graph)[0]
    return _OPENERS[name](bundle, threads, cuda_graph)


def choose_backend(
    bundle: Bundle, threads: int = 0, *, cuda_graph: bool = True
) -> tuple[Backend, dict[str, str]]:
    """Open the best backend that runs here.

    A variant of TensorRT is tried only if the bundle has engines of it.

    Args:
        bundle: The opened bundle.
        threads: Number of CPU cores for CPU backends; 0 for all.
        cuda_graph: As in `open_backend`.

    Returns:
        The backend, owned by the caller, and the reason why each better one was not chosen.

    Raises:
        BackendError: No backend runs on this machine.
    """
    passed: dict[str, str] = {}
    built = {engine.record.variant for engine in read_engines(bundle)}
    for name in BACKENDS:
        if name in TENSORRT_VARIANTS and name not in built:
            passed[name] = "the bundle has no engine for it"
            continue
        try:
            return _OPENERS[name](bundle, threads, cuda_graph), passed
        except (BackendError, EngineError) as error:
            passed[name] = str(error)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed.items())
    raise BackendError(f"no backend runs here. {reasons}")


def _open_tensorrt(variant: TensorRTVariantName) -> Callable[[Bundle, int, bool], Backend]:
    def opener(bundle: Bundle, _: int, cuda_graph: bool) -> Backend:
        from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
        from ikc_deploy.runtime.backends.tensorrt import TensorRTRunner
        from ikc_deploy.runtime.cuda.device import open_device

        device = open_device()
        return CudaBackend(TensorRTRunner(bundle, variant, device), device, cuda_graph)

    return opener


def _open_onnxruntime_cuda(bundle: Bundle, _: int, cuda_graph: bool) -> Backend:
    from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
    from ikc_deploy.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda
    from ikc_deploy.runtime.cuda.device import open_device

    device = open_device()
    return CudaBackend(OnnxRuntimeCuda(bundle, device), device, cuda_graph)


def _open_onnxruntime(bundle: Bundle, threads: int, _: bool) -> Backend:
    from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

    return OnnxRuntimeCpu.open(bundle, threads)


_OPENERS: Final[dict[str, Callable[[Bundle, int, bool], Backend]]] = {
    **{variant: _open_tensorrt(variant) for variant in TENSORRT_VARIANTS},
    "onnxruntime-cuda": _open_onnxruntime_cuda,
    CPU_BACKEND: _open_onnxruntime,
}
