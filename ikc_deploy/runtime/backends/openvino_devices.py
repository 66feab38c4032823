"""OpenVINO's library, its devices, and the precisions that they compute natively."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, get_args

from ikc_deploy.errors import BackendError, InputError, MissingExtraError
from ikc_deploy.runtime.backends.signal_stack import kept_signal_stack
from ikc_deploy.text import shown

Arithmetic = Literal["f32", "bf16", "f16"]
"""Type of the numbers in a graph's convolutions, except those that the graph quantises."""

PRECISIONS: Final = ("auto", *get_args(Arithmetic))
"""Values of `load(precision=...)`."""

DEVICES: Final = ("CPU", "GPU", "NPU", "AUTO")
"""Values of `load(device=...)`; a GPU or NPU may have a number, for example "GPU.1"."""

_DEVICE: Final = re.compile(r"CPU|AUTO|(GPU|NPU)(\.\d+)?")
_CAPABILITIES: Final[dict[Arithmetic, str]] = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
"""Names of the precisions in OpenVINO's list of a device's capabilities."""

_ISA_VARIABLES: Final = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit the instruction sets of oneDNN, which OpenVINO uses on CPUs."""
_ISAS_OF_16_BITS: Final = ("BF16", "FP16", "AMX", "AVX10", "ALL", "DEFAULT")
"""Parts of those values of `_ISA_VARIABLES` that include instructions for 16 bits."""


@dataclass(frozen=True)
class OpenVinoDevice:
    """A device of OpenVINO."""

    name: str
    """Name, for example "CPU" or "GPU.1"."""
    full_name: str
    """Name of the product."""
    architecture: str
    """Name of its instruction set or generation."""
    capabilities: frozenset[str]
    """Names of what it computes natively, as OpenVINO lists them: "FP32", "BF16", "INT8"..."""

    def computes(self, precision: Arithmetic) -> bool:
        """Return whether the device computes a precision natively."""
        return _CAPABILITIES[precision] in self.capabilities

    @property
    def compiles_ahead(self) -> bool:
        """Whether compiled models can be exported and imported again."""
        return "EXPORT_IMPORT" in self.capabilities


def is_device(name: object) -> bool:
    """Return whether `name` is one that OpenVINO may give to a device."""
    return isinstance(name, str) and _DEVICE.fullmatch(name) is not None


def check_settings(device: str, precision: str) -> None:
    """Check the names of a device and a precision.

    Raises:
        InputError: A name is unknown.
    """
    if not is_device(device):
        raise InputError(
            f"invalid device {shown(device)}: expected one of {', '.join(DEVICES)}, or one of "
            "several, for example GPU.1"
        )
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise InputError(
            f"invalid precision {shown(precision)}: expected one of {', '.join(PRECISIONS)}"
        )


def open_core() -> Any:
    """Load OpenVINO.

    Returns:
        The `Core` of this process.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: It does not start, or the process was forked after OpenVINO's first use.
    """
    core, process = loaded_core()
    # The threads of OpenVINO are not forked, and a compilation would wait for them forever.
    if process != os.getpid():
        raise BackendError(
            "OpenVINO cannot be used in a process that was forked after its first use; start "
            'workers with multiprocessing.get_context("spawn"), or load the bundle in them only'
        )
    return core


@cache
def loaded_core() -> tuple[Any, int]:
    """Return OpenVINO's `Core` and the process that created it.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: It does not start.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino", "the backend 'openvino'") from error
    except (ImportError, OSError) as error:
        raise _not_started(error) from error
    try:
        return openvino.Core(), os.getpid()
    except RuntimeError as error:
        raise _not_started(error) from error


def _not_started(error: Exception) -> BackendError:
    return BackendError(
        f"OpenVINO does not start: {reason(error)}; run: pip install --force-reinstall openvino"
    )


@kept_signal_stack()
def find_device(core: Any, wanted: str) -> OpenVinoDevice:
    """Return a device.

    Args:
        core: OpenVINO's `Core`.
        wanted: One of `DEVICES`; "AUTO" for the first GPU, or the CPU if there is none.

    Returns:
        The device.

    Raises:
        InputError: The name is invalid.
        BackendError: OpenVINO does not list the device, or cannot describe it.
    """
    check_settings(wanted, "auto")
    listed = list(core.available_devices)
    if wanted == "AUTO":
        wanted = next((name for name in listed if name.startswith("GPU")), "CPU")
    # OpenVINO numbers the GPUs if there are several; a name without number is the first one.
    if wanted not in listed and f"{wanted}.0" not in listed:
        raise BackendError(
            f"OpenVINO has no device {wanted} here, only {', '.join(listed) or 'none'}; install "
            "its driver, or choose another device"
        )
    try:
        capabilities = frozenset(core.get_property(wanted, "OPTIMIZATION_CAPABILITIES"))
        return OpenVinoDevice(
            wanted,
            str(core.get_property(wanted, "FULL_DEVICE_NAME")),
            str(core.get_property(wanted, "DEVICE_ARCHITECTURE")),
            capabilities - (_disabled() if wanted == "CPU" else set()),
        )
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot use {wanted}: {reason(error)}") from error


def _disabled() -> set[str]:
    """Return the capabilities that oneDNN may not use.

    OpenVINO lists them nevertheless, and a graph in bfloat16 is then a segmentation fault.
    """
    values = (os.environ.get(name, "").upper() for name in _ISA_VARIABLES)
    limited = any(value and not any(isa in value for isa in _ISAS_OF_16_BITS) for value in values)
    return {_CAPABILITIES["bf16"], _CAPABILITIES["f16"]} if limited else set()


def reason(error: BaseException) -> str:
    """Return OpenVINO's message without the places in its sources that threw it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(told) or " ".join(filter(None, lines)) or type(error).__name__
