"""The methods: one declaration of a loop for each. A new method is one more file here."""

from __future__ import annotations

from typing import Final

from ikc_deploy.loops.dan_loop import DAN
from ikc_deploy.loops.declaration import (
    CODE,
    FRAME,
    LR,
    NEXT_CODE,
    SR,
    GraphStep,
    Loop,
    LoopGraph,
    RunGraph,
)
from ikc_deploy.loops.ikc_loop import IKC

LOOPS: Final[dict[str, Loop]] = {loop.name: loop for loop in (IKC, DAN)}
"""All loops by name."""

__all__ = [
    "CODE",
    "DAN",
    "FRAME",
    "IKC",
    "LOOPS",
    "LR",
    "NEXT_CODE",
    "SR",
    "GraphStep",
    "Loop",
    "LoopGraph",
    "RunGraph",
    "find_loop",
]


def find_loop(name: str) -> Loop:
    """Return the loop called `name`.

    Raises:
        ValueError: There is none; the message lists those that exist.
    """
    if name not in LOOPS:
        raise ValueError(f"loop must be one of {', '.join(LOOPS)}, got {name!r}")
    return LOOPS[name]
