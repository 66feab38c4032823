"""The distribution of ONNX Runtime to install on a machine."""

from __future__ import annotations

import platform
import sys
from typing import Final

FOR_GPUS: Final = "onnxruntime-gpu"
FOR_CPUS: Final = "onnxruntime"
"""Distributions for GPUs and for CPUs only. Both contain the module `onnxruntime`, and overwrite
each other's files."""

_WITH_GPUS: Final = (("linux", "x86_64"), ("win32", "AMD64"))


def distribution() -> str:
    """Return the distribution to install here: the one for GPUs where it has wheels (setup.cfg)."""
    here = (sys.platform, platform.machine())
    return FOR_GPUS if here in _WITH_GPUS else FOR_CPUS
