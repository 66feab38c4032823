"""The loop of DAN (NeurIPS 2020) and DANv2, which alternates between Restorer and Estimator.

It starts with the code of the delta kernel. The Estimator reads the LR frames and the SR images,
which are not clamped, but not the previous code.
"""

from __future__ import annotations

from typing import Final

from ikc_deploy.loops.declaration import CODE, LR, SR, Loop, LoopGraph

DAN: Final = Loop(
    name="dan",
    start=None,
    image=LoopGraph("restorer", (LR, CODE)),
    update=LoopGraph("estimator", (SR, LR)),
    clamped=False,
    iters=3,
)
"""Deep alternating network; four images, so three updates."""
