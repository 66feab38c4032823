"""Backends, which run the graphs of a bundle."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ikc_deploy.arguments import whole_number
from ikc_deploy.bundle.engine_store import read_engines
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS, TensorRTVariantName
from ikc_deploy.errors import BackendError, EngineError, InputError, MissingExtraError
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.text import shown

BACKENDS: Final = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime")
"""Names of the backends, best first."""

CPU_BACKEND: Final = "onnxruntime"
"""Name of the backend that runs on every machine."""


OPENVINO: Final = "openvino"
"""Name of the backend that has the settings `device` and `precision`."""

DEFAULT_DEVICE: Final = "CPU"
DEFAULT_PRECISION: Final = "auto"
"""Defaults of `load(device=..., precision=...)`."""


@dataclass(frozen=True)
class BackendSettings:
    """Settings of all backends; each reads those that it has."""

    threads: int = 0
    """Number of CPU cores for CPU backends; 0 for all."""
    cuda_graph: bool = True
    """Whether GPU backends capture the loop as one CUDA graph."""
    device: str = DEFAULT_DEVICE
    """Device of OpenVINO."""
    precision: str = DEFAULT_PRECISION
    """Precision in which OpenVINO computes everything that the graphs do not quantise."""


def open_backend(
    name: str,
    bundle: Bundle,
    threads: int = 0,
    *,
    cuda_graph: bool = True,
    device: str = DEFAULT_DEVICE,
    precision: str = DEFAULT_PRECISION,
) -> Backend:
    """Open a backend for the graphs of a bundle.

    A named backend is never replaced by another.

    Args:
        name: One of `BACKENDS`, or "auto" for the best that loads (see `choose_backend`).
        bundle: The opened bundle.
        threads: Number of CPU cores for CPU backends; 0 for all.
        cuda_graph: Whether GPU backends capture the loop as one CUDA graph. False launches each
            network separately.
        device: Device of the backend "openvino": "CPU", "GPU", "NPU", or "AUTO" for a GPU if there
            is one, else the CPU.
        precision: Precision of the backend "openvino": "f32", "bf16", "f16", or "auto" for one of
            16 bits that the device computes natively and that passes a gate, else "f32".

    Returns:
        The backend, owned by the caller, who closes it.

    Raises:
        InputError: `threads`, `device` or `precision` is invalid, or the backend has no such
            setting.
        MissingExtraError: The backend is not installed.
        BackendError: The name is unknown, or the backend does not run on this machine.
        EngineError: The backend needs an engine, and the bundle has none for this machine.
    """
    if not isinstance(name, str) or name not in ("auto", *BACKENDS):
        raise BackendError(
            f"invalid backend {shown(name)}: expected one of auto, {', '.join(BACKENDS)}"
        )
    threads = whole_number(threads, "threads", 0, " (0: all cores)")
    settings = BackendSettings(threads, cuda_graph, device, precision)
    if name != OPENVINO and (device, precision) != (DEFAULT_DEVICE, DEFAULT_PRECISION):
        raise InputError(
            f"device={shown(device)} and precision={shown(precision)} are settings of the backend "
            f"{OPENVINO}, and the backend is {name}; choose backend={OPENVINO!r}, or leave them out"
        )
    if name == "auto":
        return choose_backend(bundle, threads, cuda_graph=cuda_graph)[0]
    return _OPENERS[name](bundle, settings)


def choose_backend(
    bundle: Bundle, threads: int = 0, *, cuda_graph: bool = True
) -> tuple[Backend, dict[str, str]]:
    """Open the best backend that runs here.

    A variant of TensorRT is tried only if the bundle has engines of it. OpenVINO is taken only if
    it is installed and computes in 16 bits on this CPU: natively, and within the limits of the
    gate. In float32 it was measured to be slower than ONNX Runtime on small frames.

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
    settings = BackendSettings(threads, cuda_graph)
    built = {engine.record.variant for engine in read_engines(bundle)}
    openers = _OPENERS | {OPENVINO: _open_openvino_in_16_bits}
    for name in BACKENDS:
        if name in TENSORRT_VARIANTS and name not in built:
            passed[name] = "the bundle has no engine for it"
            continue
        try:
            return openers[name](bundle, settings), passed
        except (BackendError, EngineError, MissingExtraError) as error:
            passed[name] = str(error)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed.items())
    raise BackendError(f"no backend runs here. {reasons}")


def half_precision_warning(bundle: Bundle, backend: Backend) -> str | None:
    """Return a warning if FP16 graphs run in float32 on a CPU, where they gain nothing.

    Args:
        bundle: The bundle.
        backend: The backend that runs it.

    Returns:
        The text, or None.
    """
    if bundle.manifest.precision != "fp16" or backend.device != "cpu":
        return None
    # ONNX Runtime computes float16 on ARM only; OpenVINO says in what it computes.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if getattr(backend, "precision", "f32" if x86 else "f16") != "f32":
        return None
    return (
        f"'{bundle.path}' has FP16 graphs, which {backend.name} computes in float32 on this CPU: "
        "they gain nothing here; export it with --fp32"
    )


_Opener = Callable[[Bundle, BackendSettings], Backend]


def _open_tensorrt(variant: TensorRTVariantName) -> _Opener:
    def opener(bundle: Bundle, settings: BackendSettings) -> Backend:
        from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
        from ikc_deploy.runtime.backends.tensorrt import TensorRTRunner
        from ikc_deploy.runtime.cuda.device import open_device

        device = open_device()
        return CudaBackend(TensorRTRunner(bundle, variant, device), device, settings.cuda_graph)

    return opener


def _open_onnxruntime_cuda(bundle: Bundle, settings: BackendSettings) -> Backend:
    from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
    from ikc_deploy.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda
    from ikc_deploy.runtime.cuda.device import open_device

    device = open_device()
    return CudaBackend(OnnxRuntimeCuda(bundle, device), device, settings.cuda_graph)


def _open_openvino(bundle: Bundle, settings: BackendSettings) -> Backend:
    from ikc_deploy.runtime.backends.openvino import OpenVino

    return OpenVino.open(bundle, settings.device, settings.precision, settings.threads)


def _open_openvino_in_16_bits(bundle: Bundle, settings: BackendSettings) -> Backend:
    from ikc_deploy.runtime.backends.openvino import OpenVino

    return OpenVino.open_in_16_bits(bundle, settings.threads)


def _open_onnxruntime(bundle: Bundle, settings: BackendSettings) -> Backend:
    from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

    return OnnxRuntimeCpu.open(bundle, settings.threads)


_OPENERS: Final[dict[str, _Opener]] = {
    **{variant: _open_tensorrt(variant) for variant in TENSORRT_VARIANTS},
    "onnxruntime-cuda": _open_onnxruntime_cuda,
    OPENVINO: _open_openvino,
    CPU_BACKEND: _open_onnxruntime,
}
