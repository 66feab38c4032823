"""How much memory frames need, and how much there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

RESTORE_BYTES: Final = 8 * 2**10
"""Memory for each LR pixel of an SR pass: buffers, activations and the result.

An upper bound of what was measured, by the peak resident set of a process, on ONNX Runtime's CPU
provider: 3.7 KiB for x4-lite, 3.5 for x2-lite, 5.9 for x4.
"""

LOOP_BYTES: Final = 24 * 2**10
"""The same for the whole loop, whose corrector works at SR resolution: 10.0 KiB for x4-lite, 7.4
for x2-lite, 21.9 for x4."""


def available_memory(
    proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that a process can still take, as far as the system says; None if it does not.

    A container's limit counts where it is below the machine's memory.
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
