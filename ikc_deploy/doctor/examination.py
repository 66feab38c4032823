"""All checks of ikc-doctor and their report.

Nothing here imports torch, TensorRT or CUDA: versions come from package metadata, GPUs from
nvidia-smi, and the rest from child processes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass

from ikc_deploy.benchmarks.machine import installed_version
from ikc_deploy.bundle.gpus import Gpu, find_gpus
from ikc_deploy.bundle.manifest import MANIFEST_FILE
from ikc_deploy.doctor.probes import (
    ChosenBackend,
    InferenceDevice,
    Provider,
    probe_backend,
    probe_openvino,
    probe_providers,
)
from ikc_deploy.doctor.required_packages import (
    COMMANDS,
    DISTRIBUTION,
    Command,
    Package,
    check_command,
    required_packages,
)
from ikc_deploy.onnx_runtime import FOR_CPUS, FOR_GPUS, distribution
from ikc_deploy.paths import cache_folder
from ikc_deploy.weights import shipped_weights


@dataclass(frozen=True)
class DoctorReport:
    """The result of all checks."""

    usable: bool
    """Whether images can be upscaled on this machine."""
    python: str
    """Version of Python."""
    ikc_deploy: str | None
    """Installed version of ikc-deploy; None in a checkout that was never installed."""
    packages: tuple[Package, ...]
    """Required packages, installed or not."""
    providers: tuple[Provider, ...]
    """Execution providers of ONNX Runtime."""
    openvino: tuple[InferenceDevice, ...]
    """Devices of OpenVINO; empty if it is not installed."""
    backend: ChosenBackend | None
    """Backend that "auto" selects; None if none runs."""
    gpus: tuple[Gpu, ...]
    """NVIDIA GPUs."""
    no_gpu: str
    """Reason why no GPU was found; empty if one was found."""
    weights: tuple[str, ...]
    """Names of the shipped weights."""
    cache: str
    """Folder of the cached bundles."""
    cached: tuple[str, ...]
    """Names of the bundles in the cache folder."""
    commands: tuple[Command, ...]
    """Console commands and the packages that they lack."""
    problems: tuple[str, ...]
    """Problems other than missing packages, each with what to do about it."""


def examine() -> DoctorReport:
    """Run all checks.

    It takes a few seconds, and longer only if a driver or provider does not respond.

    Returns:
        The report.
    """
    packages = required_packages()
    commands = tuple(check_command(name, needs, packages) for name, needs in COMMANDS.items())
    providers, not_started = probe_providers()
    devices, openvino_problems = probe_openvino()
    backend, no_backend = probe_backend()
    gpus, no_gpu = find_gpus()
    cache = cache_folder()
    return DoctorReport(
        usable=commands[0].ready and any(provider.loads for provider in providers),
        python=platform.python_version(),
        ikc_deploy=installed_version(DISTRIBUTION),
        packages=packages,
        providers=providers,
        openvino=devices,
        backend=backend,
        gpus=gpus,
        no_gpu=no_gpu,
        weights=tuple(shipped_weights()),
        cache=str(cache),
        cached=tuple(sorted(path.parent.name for path in cache.glob(f"*/{MANIFEST_FILE}"))),
        commands=commands,
        problems=(*not_started, *openvino_problems, *no_backend, *_problems()),
    )


def _problems() -> Iterable[str]:
    if installed_version(DISTRIBUTION) is None:
        yield f"{DISTRIBUTION} is not installed, so its needs are not known; run: pip install ."
    if installed_version(FOR_GPUS) and installed_version(FOR_CPUS):
        yield (
            f"{FOR_GPUS} and {FOR_CPUS} are both installed and overwrite each other's files; run: "
            f"pip uninstall -y {FOR_GPUS} {FOR_CPUS} && pip install {distribution()}"
        )
