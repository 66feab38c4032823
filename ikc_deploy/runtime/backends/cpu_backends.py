"""The choice of a CPU backend.

OpenVINO is chosen if it is installed and compiles the bundle's graphs, else ONNX Runtime;
docs/adr/0035 has the measurements. `IKC_CPU_BACKEND` overrides the choice, for results that must be
equal on all machines.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Final

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError, InputError, MissingExtraError
from ikc_deploy.runtime.backends.backend_names import CPU_BACKENDS, ONNXRUNTIME, OPENVINO
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.text import shown

if TYPE_CHECKING:
    from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
    from ikc_deploy.runtime.backends.openvino import OpenVino

CPU_BACKEND_VARIABLE: Final = "IKC_CPU_BACKEND"
"""Environment variable with the CPU backend that "auto" selects."""


def choose_cpu_backend(bundle: Bundle, threads: int = 0) -> tuple[Backend, dict[str, str]]:
    """Open the CPU backend that "auto" selects.

    This is OpenVINO if it is installed and compiles every graph of the bundle, else ONNX Runtime.
    If OpenVINO is installed but fails, a `RuntimeWarning` gives the reason. The environment
    variable `IKC_CPU_BACKEND` overrides the choice, without fallback.

    Args:
        bundle: The opened bundle.
        threads: Number of CPU cores; 0 for all.

    Returns:
        The backend, owned by the caller, and the reasons why better ones were rejected, by name.

    Raises:
        InputError: `IKC_CPU_BACKEND` is invalid.
        MissingExtraError: `IKC_CPU_BACKEND` is OpenVINO, which is not installed.
        BackendError: No CPU backend runs on this machine.
        BundleError: A graph was altered or does not match the manifest.
    """
    named = os.environ.get(CPU_BACKEND_VARIABLE)
    if named:
        if named not in CPU_BACKENDS:
            raise InputError(
                f"invalid {CPU_BACKEND_VARIABLE} {shown(named)}: expected {OPENVINO} or "
                f"{ONNXRUNTIME}, or leave the variable out"
            )
        if named == OPENVINO:
            return _open_openvino(bundle, threads), {}
        return open_onnxruntime(bundle, threads), {
            OPENVINO: f"the environment variable {CPU_BACKEND_VARIABLE} names {named}"
        }
    try:
        return _open_openvino(bundle, threads), {}
    except MissingExtraError as error:
        reason = str(error)
    except BackendError as error:
        reason = str(error)
        warnings.warn(
            f"OpenVINO is installed and does not run '{bundle.path}', so ONNX Runtime is used: "
            f"{reason} (backend='{ONNXRUNTIME}' leaves out the attempt)",
            RuntimeWarning,
            stacklevel=2,
        )
    return open_onnxruntime(bundle, threads), {OPENVINO: reason}


def _open_openvino(bundle: Bundle, threads: int) -> OpenVino:
    from ikc_deploy.runtime.backends.openvino import OpenVino

    backend = OpenVino.open(bundle, threads=threads)
    backend.compile_open_shapes()
    return backend


def open_onnxruntime(bundle: Bundle, threads: int) -> OnnxRuntimeCpu:
    """Open ONNX Runtime on the CPU; imported on demand, because it is not needed for GPUs."""
    from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

    return OnnxRuntimeCpu.open(bundle, threads)
