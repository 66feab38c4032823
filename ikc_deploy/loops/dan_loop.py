"""The loop of DAN (NeurIPS 2020, and its second version): Restorer and Estimator in turn.

It starts at the code of the delta kernel. The Estimator sees the LR frames beside the SR images,
which are not clamped, and no code.
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
"""Deep alternating network; four images, hence three updates."""
