"""The step size of the loop: a line search at the end of the stages that train the corrector.

P and C read almost the same evidence. A full step discards P's estimate, a damped one is a weighted
mean of the two. The best weight is measured on new crops: the images of the last step must not be
worse than P's at any sigma. The search applies only to the statistics corrector, whose step is a
few numbers.
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
    """The gains of seven steps over P's code, as decreases of the L1 on RGB in [0,1]."""

    step_size: float
    """Size of the steps, relative to the trained one."""
    mean: float
    """Mean gain over all crops."""
    worst: float
    """Mean gain of the worst quarter of the crops, ordered by sigma."""


@torch.no_grad()
def search_step_size(context: StageContext[IkcNetworks]) -> dict[str, float]:
    """Scale the corrector's last layer by the best step size; return figures to log.

    The best size is the one with the largest gain among those that make no quarter of the blurs
    worse, or the smallest if there are none. The reference corrector stays unchanged.
    """
    corrector = context.networks.corrector
    if not isinstance(corrector, StatisticsCorrector):
        return {}
    last = corrector.last_layer
    full = {name: value.clone() for name, value in last.state_dict().items()}

    def take(step_size: float) -> None:
        last.load_state_dict({name: step_size * value for name, value in full.items()})

    starts = [_start(context, index) for index in range(_BATCHES)]
    measured = []
    for step_size in STEP_SIZES:
        take(step_size)
        measured.append(_gains(context, starts, step_size))
    chosen = context.processes.broadcast(choose(measured))
    take(chosen)
    figures = {f"gain_at_{gains.step_size:g}": gains.mean for gains in measured}
    return {"step_size": chosen} | figures


def choose(measured: list[Gains]) -> float:
    """Return the step size with the largest gain among those that make no quarter worse.

    If there are none, return the smallest.
    """
    harmless = [gains for gains in measured if gains.worst >= 0]
    if not harmless:
        return min(gains.step_size for gains in measured)
    return max(harmless, key=lambda gains: gains.mean).step_size


@dataclass(frozen=True, eq=False)
class _Start:
    """A batch, and P's codes and images of it: the same for every step size."""

    batch: Batch
    code: Tensor
    image: Tensor


def _start(context: StageContext[IkcNetworks], index: int) -> _Start:
    # Batches that no step of the stage has drawn.
    batch = context.source.batch(context.settings.steps + index)
    code, _ = context.predicted(batch)
    return _Start(batch, code, context.image(batch, code))


def _gains(context: StageContext[IkcNetworks], starts: list[_Start], step_size: float) -> Gains:
    sizes, gains = [], []
    for start in starts:
        batch, code, image = start.batch, start.code, start.image
        for _ in range(_ITERS):
            code, _ = context.corrected(batch, image, code)
            image = context.image(batch, code)
        errors = [(each - batch.hr).abs().mean(dim=(1, 2, 3)) for each in (start.image, image)]
        gains.append((errors[0] - errors[1]).double())
        sizes.append(batch.kernel_parameters[:, :2].mean(dim=1))
    gain, size = torch.cat(gains), torch.cat(sizes)
    quarters = torch.tensor_split(gain[size.argsort()], _BINS)
    worst = min(float(quarter.mean()) for quarter in quarters)
    return Gains(step_size, float(gain.mean()), worst)
