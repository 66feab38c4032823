"""Print how memory grows over a thousand calls: `python -m tools.torture.flat_memory FOLDER`."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Final

import numpy as np

from ikc_deploy import load
from tools.torture.material import Material

CALLS: Final = 1000
_WARM_UP: Final = 200
_SIZES: Final = ((16, 16), (16, 40), (40, 16), (33, 47), (64, 64))


def growth_bytes(material: Material, source: random.Random) -> int:
    """Return by how much memory has grown between call `_WARM_UP` and the last one, in bytes."""
    before = 0
    with load(material.bundle()) as upscaler:
        for call in range(CALLS):
            if call == _WARM_UP:
                before = resident_bytes()
            frame = np.full((*source.choice(_SIZES), 3), source.randrange(256), np.uint8)
            upscaler(frame)
        return resident_bytes() - before


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(growth_bytes(Material(Path(sys.argv[1])), random.Random(sys.argv[2])))
