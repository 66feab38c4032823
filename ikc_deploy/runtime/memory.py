"""Memory that frames need, and memory that is available."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RESTORE_BYTES: Final = 8 * 2**10
"""Number of bytes for each LR pixel of an SR pass: buffers, activations and the result.

It is an upper bound of the peak resident set of a process with ONNX Runtime's CPU provider, as
measured: 3.7 KiB for x4-lite, 3.5 for x2-lite, 5.9 for x4.
"""

PREDICT_BYTES: Final = 2 * 2**10
"""Number of bytes for each LR pixel of the predictor, which works at LR resolution. Measured: 0.3
KiB for x4-lite and x2-lite; two activations of 128 channels in float32 are 1 KiB."""

LOOP_BYTES: Final = 24 * 2**10
"""Number of bytes for each LR pixel of the whole loop, whose corrector works at SR resolution.
Measured: 10.0 KiB for x4-lite, 7.4 for x2-lite, 21.9 for x4."""


@dataclass(frozen=True)
class PixelMemory:
    """Numbers of bytes that an LR pixel needs on a device."""

    predict: int = PREDICT_BYTES
    """For the predictor."""
    restore: int = RESTORE_BYTES
    """For the SR network."""
    loop: int = LOOP_BYTES
    """For the whole loop."""

    @classmethod
    def of_buffers(cls, scale: int, sr_bytes: int, frame_bytes: int) -> PixelMemory:
        """Return what the buffers need where the activations' memory is unknown before they run.

        It is a lower bound: if the rest is too little for the activations, tiles are halved.

        Args:
            scale: Scale factor.
            sr_bytes: Size of a number of the SR image that the corrector reads.
            frame_bytes: Size of a number of frames in their own layout.
        """
        # The image, and a copy of it for the caller.
        image = 3 * scale**2 * (sr_bytes + 2 * frame_bytes)
        return cls(3 * frame_bytes, 3 * frame_bytes + image, 3 * frame_bytes + image)


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
