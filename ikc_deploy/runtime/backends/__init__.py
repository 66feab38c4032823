"""Backends: what runs the three graphs of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ikc_deploy.arguments import shown, whole_number
from ikc_deploy.bundle.engine_store import read_engines
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS, TensorRTVariantName
from ikc_deploy.errors import BackendError, EngineError
from ikc_deploy.runtime.backends.base import Backend

BACKENDS: Final = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime")
"""Names that `open_backend` knows, best first."""

CPU_BACKEND: Final = "onnxruntime"
"""The one that works everywhere."""


def open_backend(
    name: str, bundle: Bundle, threads: int = 0, *, cuda_graph: bool = True
) -> Backend:
    """The backend called `name` ("auto" for the best that loads) for the graphs of `bundle`.

    `threads` bounds the CPU cores of CPU backends; 0 means all. `cuda_graph=False` lets GPU
    backends start every network of the loop one by one. Raises `InputError` for negative
    `threads`, `BackendError` for an unknown name or if the backend does not load here, and
    `EngineError` if it does and the bundle has no engine for it; another backend than the named
    one is never taken instead.
    """
    if not isinstance(name, str) or name not in ("auto", *BACKENDS):
        raise BackendError(
            f"there is no backend {shown(name)}; choose one of auto, {', '.join(BACKENDS)}"
        )
    threads = whole_number(threads, "threads", 0, " (0: all cores)")
    if name == "auto":
        return choose_backend(bundle, threads, cuda_graph=cuda_graph)[0]
    return _OPENERS[name](bundle, threads, cuda_graph)


def choose_backend(
    bundle: Bundle, threads: int = 0, *, cuda_graph: bool = True
) -> tuple[Backend, dict[str, str]]:
    """What "auto" takes, and for each better backend, why not that one.

    A variant of TensorRT is only looked at if the bundle has engines of it. Raises `BackendError`
    if none loads.
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
