"""The loops of all methods, one file each."""

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
from ikc_deploy.loops.loop_registry import LOOPS, find_loop

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
