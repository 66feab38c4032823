"""Line search for the step size of the loop, at the end of the stages that train the corrector.

P and C use almost the same information. A full step discards P's estimate; a damped step is a
weighted mean of both estimates. The best weight is measured on new crops: at no sigma may the
images of the last step be worse than those with P's code. Only the statistics corrector, whose step
is a few parameters, can be damped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ikc_deploy.networks.corrector import StatisticsCorrector
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.training.batches import Batch
from ikc_deploy.training.stage_context import StageContext

STEP_SIZES: Final = (1.0, 0.3, 0.1, 0.05, 0.02)
"""Step sizes that are compared, relative to the trained one."""

_BATCHES: Final = 8
_ITERS: Final = 7
_BINS: Final = 4


@dataclass(frozen=True)
class Gains:
    """The gains of seven steps over P's code, as reductions of the L1 error of RGB in [0,1]."""

    step_size: float
    """Step size, relative to the trained one."""
    mean: float
    """Mean gain over all crops."""
    worst: float
    """Lowest mean gain of the four quartiles of sigma."""


@torch.no_grad()
def search_step_size(context: StageContext[IkcNetworks]) -> dict[str, float]:
    """Scale the corrector's last layer by the best step size; return figures to log.

    See `choose` for the criterion. The reference corrector is left unchanged.
    """
    corrector = context.networks.corrector
    if not isinstance(corrector, StatisticsCorrector):
        return {}
    last = corrector.last_layer
    full = {name: value.clone() for name, value in last.state_dict().items()}

    def set_step_size(step_size: float) -> None:
        last.load_state_dict({name: step_size * value for name, value in full.items()})

    starts = [_start(context, index) for index in range(_BATCHES)]
    measured = []
    for step_size in STEP_SIZES:
        set_step_size(step_size)
        measured.append(_gains(context, starts, step_size))
    chosen = context.processes.broadcast(choose(measured))
    set_step_size(chosen)
    figures = {f"gain_at_{gains.step_size:g}": gains.mean for gains in measured}
    return {"step_size": chosen} | figures


def choose(measured: list[Gains]) -> float:
    """Return the step size with the largest mean gain that makes no quartile of sigma worse.

    If there is none, return the smallest step size.
    """
    harmless = [gains for gains in measured if gains.worst >= 0]
    if not harmless:
        return min(gains.step_size for gains in measured)
    return max(harmless, key=lambda gains: gains.mean).step_size


@dataclass(frozen=True, eq=False)
class _Start:
    """A batch with P's codes and their images, shared by all step sizes."""

    batch: Batch
    code: Tensor
    image: Tensor


def _start(context: StageContext[IkcNetworks], index: int) -> _Start:
    # Batches that no step of the stage has drawn.
    batch = context.source.batch(context.settings.steps + index)
    code, _ = context.predict(batch)
    return _Start(batch, code, context.image(batch, code))


def _gains(context: StageContext[IkcNetworks], starts: list[_Start], step_size: float) -> Gains:
    sizes, gains = [], []
    for start in starts:
        batch, code, image = start.batch, start.code, start.image
        for _ in range(_ITERS):
            code, _ = context.correct(batch, image, code)
            image = context.image(batch, code)
        errors = [(each - batch.hr).abs().mean(dim=(1, 2, 3)) for each in (start.image, image)]
        gains.append((errors[0] - errors[1]).double())
        sizes.append(batch.kernel_parameters[:, :2].mean(dim=1))
    gain, size = torch.cat(gains), torch.cat(sizes)
    quarters = torch.tensor_split(gain[size.argsort()], _BINS)
    worst = min(float(quarter.mean()) for quarter in quarters)
    return Gains(step_size, float(gain.mean()), worst)
