"""Memory that frames need, and memory that is available."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ikc_deploy.bundle.manifest import Manifest
from ikc_deploy.loops import find_loop
from ikc_deploy.runtime.frames import LAYOUTS

_CPU_FACTOR: Final = 2
"""Memory that a graph takes on a CPU, in sizes of the tensors that exist at the same time. ONNX
Runtime took 1.4 to 1.8 without the buffers of images (from the figures of docs/tiling.md). Runtimes
reorder tensors for their kernels, and take memory in larger pieces than they need."""


@dataclass(frozen=True)
class PixelMemory:
    """Numbers of bytes that an LR pixel of one frame needs on a device."""

    predict: int
    """For the start graph."""
    restore: int
    """For the SR network."""
    loop: int
    """For the whole loop."""

    @classmethod
    def of_bundle(cls, manifest: Manifest, on_cpu: bool) -> PixelMemory:
        """Return what the graphs of a bundle need.

        On a GPU it is a lower bound, the buffers of frames and images, because what an engine needs
        is not known before it runs. If the rest is too little for that, tiles are halved.

        Args:
            manifest: Manifest of the bundle.
            on_cpu: Whether the graphs run on a CPU.
        """
        layout, loop = LAYOUTS[manifest.io], find_loop(manifest.loop)
        factor = _CPU_FACTOR if on_cpu else 0
        tensors = {name: factor * size for name, size in manifest.activation_bytes.items()}
        frame = 3 * layout.dtype.itemsize
        # The image that the update graph reads, the image of the caller, and a copy of it.
        sr_bytes = layout.sr_dtype(manifest.precision).itemsize
        images = frame + 3 * manifest.scale**2 * (sr_bytes + 2 * layout.dtype.itemsize)
        return cls(
            predict=frame + (0 if loop.start is None else tensors[loop.start.name]),
            restore=images + tensors[loop.image.name],
            loop=images + max(tensors.values()),
        )


def available_memory(
    proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the number of bytes that a process can still allocate; None if unknown.

    A container's limit applies if it is lower than the machine's available memory.

    Args:
        proc: Folder of the proc file system.
        cgroup: Folder of the process's control group.

    Returns:
        The number of bytes, or None where the system does not report it.
    """
    meminfo = proc / "meminfo"
    if not meminfo.is_file():
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    if found is None:
        return None
    available = 2**10 * int(found[1])
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (bound := limit.read_text().strip()).isdecimal():
        available = min(available, max(0, int(bound) - int(used.read_text())))
    return available
