"""Attempts to run a tiny model with every runtime, each in a process of its own (`probe_child`).

ONNX Runtime lists every execution provider that it was built with, even if libraries or devices are
missing, and so does OpenVINO with devices.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from ikc_deploy.benchmarks.machine import installed_version
from ikc_deploy.doctor import probe_child
from ikc_deploy.doctor.probe_child import AUTO, OPENVINO
from ikc_deploy.onnx_runtime import distribution

_Found = TypeVar("_Found")

_NUMBERS: Final = ("FP32", "BF16", "FP16", "INT8")
"""Precisions among the capabilities of OpenVINO's devices."""

PROBE_SECONDS: Final = 30.0
"""Maximum time in seconds to try a provider."""

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_REASONS: Final = (r"with error: (.+)", r"CUDA failure \d+: ([^;]+)", r"\[E:onnxruntime.*?\] (.+)")
"""Patterns of the reasons in ONNX Runtime's messages why a provider did not load, best first."""


@dataclass(frozen=True)
class Provider:
    """An execution provider that ONNX Runtime lists."""

    name: str
    loads: bool
    """Whether a session with it ran a model."""
    reason: str
    """Reason why it does not load; empty if it does."""


@dataclass(frozen=True)
class InferenceDevice:
    """A device that OpenVINO lists."""

    name: str
    loads: bool
    """Whether it ran a model."""
    product: str
    """Name of the product; empty if it does not load."""
    precisions: tuple[str, ...]
    """Precisions that it computes natively."""
    reason: str
    """Reason why it does not load; empty if it does."""


@dataclass(frozen=True)
class ChosenBackend:
    """The backend that "auto" selects for the shipped weights."""

    name: str
    """Name of the backend."""
    device: str
    """Name of its device."""
    precision: str
    """Precision in which it computes, with the reason; empty on GPUs, where graphs determine it."""
    passed: tuple[tuple[str, str], ...]
    """Names of the backends that would have been preferred, each with the reason against it."""


def probe_providers() -> tuple[tuple[Provider, ...], tuple[str, ...]]:
    """Try every provider that ONNX Runtime lists.

    Returns:
        The providers, and problems if ONNX Runtime does not start.
    """
    return _probe_all((), probe_provider, "ONNX Runtime", distribution())


def probe_provider(name: str) -> Provider:
    """Return whether an ONNX Runtime session with this provider runs a model, and if not, why."""
    got, said = _ask_child(name)
    return Provider(name, True, "") if name in got else Provider(name, False, _reason(said))


def probe_openvino() -> tuple[tuple[InferenceDevice, ...], tuple[str, ...]]:
    """Try every device that OpenVINO lists.

    Returns:
        The devices, none if OpenVINO is not installed; and problems if it does not start.
    """
    if installed_version(OPENVINO) is None:
        return (), ()
    return _probe_all((OPENVINO,), probe_openvino_device, "OpenVINO", OPENVINO)


def probe_openvino_device(name: str) -> InferenceDevice:
    """Return whether a device of OpenVINO runs a model, and if not, why."""
    got, said = _ask_child(OPENVINO, name)
    if not got:
        return InferenceDevice(name, False, "", (), _reason(said))
    product, *capabilities = got
    return InferenceDevice(
        name, True, product, tuple(each for each in _NUMBERS if each in capabilities), ""
    )


def probe_backend() -> tuple[ChosenBackend | None, tuple[str, ...]]:
    """Open the shipped weights with the backend "auto".

    Returns:
        The backend, and problems if none runs.
    """
    answer, said = _ask_child(AUTO)
    if not answer:
        return None, (f"no backend runs the shipped weights: {_reason(said)}",)
    name, device, precision, *rest = answer
    return ChosenBackend(
        name, device, precision, tuple(zip(rest[::2], rest[1::2], strict=True))
    ), ()


def _probe_all(
    asked: tuple[str, ...], probe: Callable[[str], _Found], runtime: str, package: str
) -> tuple[tuple[_Found, ...], tuple[str, ...]]:
    """Let a child list what a runtime has, and probe all of it at the same time."""
    listed, said = _ask_child(*asked)
    if not listed:
        fix = f"pip install --force-reinstall {package}"
        return (), (f"{runtime} does not start: {_reason(said)}; run: {fix}",)
    with ThreadPoolExecutor(max_workers=len(listed)) as pool:
        return tuple(pool.map(probe, listed)), ()


def _ask_child(*arguments: str) -> tuple[list[str], str]:
    """Return the list of texts that a child process prints last, and all of its output."""
    command = [sys.executable, "-m", probe_child.__name__, *arguments]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"no answer within {PROBE_SECONDS:.0f} seconds"
    if child.returncode < 0:
        return [], f"the process that tried it was killed by signal {-child.returncode}"
    said = f"{child.stdout}\n{child.stderr}"
    if child.returncode > 0:
        return [], said
    # The answer comes last: ONNX Runtime prints to standard output, too.
    answer: list[str] = json.loads(child.stdout.splitlines()[-1])
    return answer, said


def _reason(said: str) -> str:
    plain = _COLOURS.sub("", said)
    for pattern in _REASONS:
        found = re.search(pattern, plain)
        if found:
            return found[1].strip()
    lines = plain.strip().splitlines()
    return lines[-1].strip() if lines else "it printed no reason"
