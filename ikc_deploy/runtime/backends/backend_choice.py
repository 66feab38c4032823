"""The choice of a backend, and its opening.

`open_backend` opens a backend by its name, `choose_backend` the best one that loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from ikc_deploy.bundle.engine_store import read_engines
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS, TensorRTVariantName
from ikc_deploy.errors import BackendError, EngineError, InputError, MissingExtraError
from ikc_deploy.runtime.backends.backend_names import (
    BACKENDS,
    CPU_BACKENDS,
    CUDA_BACKENDS,
    ONNXRUNTIME,
    ONNXRUNTIME_CUDA,
    OPENVINO,
)
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.backends.cpu_backends import choose_cpu_backend, open_onnxruntime
from ikc_deploy.runtime.backends.openvino_devices import DEVICES, is_device
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.text import shown

if TYPE_CHECKING:
    from ikc_deploy.runtime.cuda.device import Device

DEFAULT_OPTIONS: Final = UpscalerOptions()


def open_backend(name: str, bundle: Bundle, options: UpscalerOptions = DEFAULT_OPTIONS) -> Backend:
    """Open a backend for the graphs of a bundle.

    There is no fallback from a backend that is requested by name.

    Args:
        name: One of `BACKENDS`, or "auto" for the best one that loads (see `choose_backend`).
        bundle: The opened bundle.
        options: Options of the upscaler, for one device; the backend is `name`.

    Returns:
        The backend, owned by the caller, who closes it.

    Raises:
        InputError: An option is invalid, or does not apply to the backend.
        MissingExtraError: The backend is not installed.
        BackendError: The name is unknown, or the backend does not run on this machine.
        EngineError: The backend needs an engine, and the bundle has none for this machine.
    """
    if not isinstance(name, str) or name not in ("auto", *BACKENDS):
        raise BackendError(
            f"invalid backend {shown(name)}: expected one of auto, {', '.join(BACKENDS)}"
        )
    _check_options(name, options)
    options = replace(options, threads=int(options.threads))
    if name == "auto":
        return choose_backend(bundle, options)[0]
    return _OPENERS[name](bundle, options)


def open_backends(name: str, bundle: Bundle, options: UpscalerOptions) -> list[Backend]:
    """Open a backend on each of several devices.

    Args:
        name: As in `open_backend`.
        bundle: The opened bundle.
        options: Options of the upscaler; `device` may be numbers of GPUs separated by commas.

    Returns:
        One backend per device, all of the same kind, owned by the caller.

    Raises:
        InputError: A device is given twice, or as in `open_backend`.
        IkcError: As in `open_backend`.
    """
    device = options.device
    numbers = device.split(",") if isinstance(device, str) else [device]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"device={shown(device)} names a device twice")
    opened: list[Backend] = []
    try:
        for number in numbers:
            kind = opened[0].name if opened else name
            opened.append(open_backend(kind, bundle, replace(options, device=number)))
    except BaseException:
        for backend in opened:
            backend.close()
        raise
    return opened


def choose_backend(
    bundle: Bundle, options: UpscalerOptions = DEFAULT_OPTIONS
) -> tuple[Backend, dict[str, str]]:
    """Open the best backend for this machine: a GPU backend that loads, else a CPU backend.

    A variant of TensorRT is tried only if the bundle has engines for it. The CPU backend is chosen
    by `cpu_backends.choose_cpu_backend`.

    Args:
        bundle: The opened bundle.
        options: Options of the upscaler. `cuda_graph="require"` restricts the choice to the
            TensorRT variants, the number of a GPU to GPU backends.

    Returns:
        The backend, owned by the caller, and the reasons why better ones were rejected, by name.

    Raises:
        InputError: The environment variable `IKC_CPU_BACKEND` names no CPU backend.
        BackendError: No backend runs on this machine.
    """
    rejected: dict[str, str] = {}
    needs_cuda_graph = options.cuda_graph == "require"
    built = {engine.record.variant for engine in read_engines(bundle)}
    for name in tuple(TENSORRT_VARIANTS) if needs_cuda_graph else CUDA_BACKENDS:
        if name in TENSORRT_VARIANTS and name not in built:
            rejected[name] = "the bundle has no engine for it"
            continue
        try:
            return _OPENERS[name](bundle, options), rejected
        except (BackendError, EngineError, MissingExtraError) as error:
            rejected[name] = str(error)
    if options.device == UpscalerOptions.device and not needs_cuda_graph:
        try:
            backend, reasons = choose_cpu_backend(bundle, options.threads)
            return backend, rejected | reasons
        except (BackendError, MissingExtraError) as error:
            rejected["the CPU"] = str(error)
    reasons_for_all = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    raise BackendError(f"no backend runs here. {reasons_for_all}")


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
    # Not isinstance, because CPU backends may be wrapped.
    if getattr(backend, "precision", None) != "f32":
        return None
    return (
        f"'{bundle.path}' has FP16 graphs, which {backend.name} computes in float32 on this CPU: "
        "they gain nothing here; export it with --fp32"
    )


def _check_options(name: str, options: UpscalerOptions) -> None:
    """Raise `InputError` if an option is invalid, or does not apply to the backend `name`."""
    device, precision = options.device, options.precision
    if precision != UpscalerOptions.precision and name != OPENVINO:
        raise InputError(
            f"precision={shown(precision)} is a setting of the backend {OPENVINO}, and "
            f"the backend is {name}; choose backend={OPENVINO!r}, or leave it out"
        )
    if options.cuda_graph == "require" and name not in ("auto", *TENSORRT_VARIANTS):
        raise InputError(
            f"the backend {name} records no CUDA graphs, and cuda_graph is 'require'; choose "
            f"one of {', '.join(TENSORRT_VARIANTS)}, or cuda_graph='auto'"
        )
    numbered = isinstance(device, str) and device.isdecimal()
    having = "auto", *(CUDA_BACKENDS if numbered else (OPENVINO,))
    if device != UpscalerOptions.device and name not in having[0 if numbered else 1 :]:
        if not numbered and not is_device(device):
            raise InputError(
                f"invalid device {shown(device)}: expected the number of a GPU, for "
                f"example 0, or, for the backend {OPENVINO}, {' or '.join(DEVICES)}"
            )
        raise InputError(
            f"device={shown(device)} is for the backends {', '.join(having[1:])}, and the "
            f"backend is {name}; choose one of these, or leave the device out (GPUs have "
            f"numbers: device=1; the CPU is the device of {' and '.join(CPU_BACKENDS)})"
        )


_Opener = Callable[[Bundle, UpscalerOptions], Backend]


def _open_tensorrt(
    variant: TensorRTVariantName, bundle: Bundle, options: UpscalerOptions
) -> Backend:
    from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
    from ikc_deploy.runtime.backends.tensorrt import TensorRTRunner

    device = _gpu(options)
    return CudaBackend(TensorRTRunner(bundle, variant, device), device, options.cuda_graph)


def _open_onnxruntime_cuda(bundle: Bundle, options: UpscalerOptions) -> Backend:
    from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
    from ikc_deploy.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda

    device = _gpu(options)
    return CudaBackend(OnnxRuntimeCuda(bundle, device), device, options.cuda_graph)


def _open_openvino(bundle: Bundle, options: UpscalerOptions) -> Backend:
    from ikc_deploy.runtime.backends.openvino import OpenVino

    device = "CPU" if options.device == UpscalerOptions.device else options.device
    return OpenVino.open(bundle, device, options.precision, options.threads)


def _gpu(options: UpscalerOptions) -> Device:
    from ikc_deploy.runtime.cuda.device import open_device

    return open_device(0 if options.device == UpscalerOptions.device else int(options.device))


_OPENERS: Final[dict[str, _Opener]] = {
    **{variant: partial(_open_tensorrt, variant) for variant in TENSORRT_VARIANTS},
    ONNXRUNTIME_CUDA: _open_onnxruntime_cuda,
    OPENVINO: _open_openvino,
    ONNXRUNTIME: lambda bundle, options: open_onnxruntime(bundle, options.threads),
}
