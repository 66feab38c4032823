"""The loop of IKC (CVPR 2019, Algorithm 1), with the graphs predictor, sftmd and corrector."""

from __future__ import annotations

from typing import Final

from ikc_deploy.loops.declaration import CODE, LR, SR, Loop, LoopGraph

IKC: Final = Loop(
    name="ikc",
    start=LoopGraph("predictor", (LR,)),
    image=LoopGraph("sftmd", (LR, CODE)),
    update=LoopGraph("corrector", (SR, CODE)),
    clamped=True,
    iters=7,
)
"""Iterative kernel correction."""
