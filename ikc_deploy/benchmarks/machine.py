"""The description of a machine: all that is needed to compare results, nothing personal.

No host name, user name or path is read. Versions come from package metadata, so that describing
a machine imports neither torch nor CUDA.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ikc_deploy.bundle.gpus import find_gpus
from ikc_deploy.version import __version__

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "numpy": ("numpy",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "torch": ("torch",),
}
"""Packages that affect results, each with the distributions that contain it."""


def describe_machine() -> dict[str, Any]:
    """Describe CPU, usable cores, memory, system, versions, GPUs, and the current load."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "os": _system(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "packages": {"ikc-deploy": __version__}
        | {name: installed_version(*sources) for name, sources in PACKAGES.items()},
        "gpus": [asdict(gpu) for gpu in find_gpus()[0]],
    }


def installed_version(*distributions: str) -> str | None:
    """Return the version of the first of these distributions that is installed; None if none is."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's name; on ARM boards, whose cores have none, the board's."""
    board = Path("/proc/device-tree/model")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    if board.is_file():
        return board.read_text(errors="replace").strip("\0 \n")
    return platform.processor() or platform.machine()


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the number of cores of this process: its affinity, or a container's smaller quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if quota.is_file():
        # "max 100000" without a quota, else microseconds of CPU time in each period.
        allowed, period = quota.read_text().split()
        if allowed != "max":
            cores = min(cores, max(1, int(allowed) // int(period)))
    return cores


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _system() -> str:
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel
