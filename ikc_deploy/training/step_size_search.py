"""The step size of the loop: a line search that ends the stages which train the corrector.

P and C read almost the same evidence. A full step throws P's reading away, a damped one weighs the
two. Which weight serves the image is measured on fresh crops: the images of the last step must not
be worse than P's at any sigma. Only the compact corrector, whose step is a few numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from ikc_deploy.networks.corrector import StatisticsCorrector

if TYPE_CHECKING:
    from ikc_deploy.training.stages import StageContext

STEP_SIZES: Final = (1.0, 0.3, 0.1, 0.05, 0.02)
"""Step sizes that are tried, of the one that was trained."""

_BATCHES: Final = 8
_ITERS: Final = 7
_BINS: Final = 4


@dataclass(frozen=True)
class Gains:
    """What seven steps of one size gain over P's code: fall of the L1 on RGB in [0,1]."""

    step_size: float
    mean: float
    worst: float
    """Of the quarters of the crops by sigma, the one that gains least."""


@torch.no_grad()
def search_step_size(context: StageContext) -> dict[str, float]:
    """Scale the corrector's last layer by the best step size; returns figures to log.

    Of the sizes that make no quarter of the blurs worse, the one that gains most; if every size
    does, the smallest. Does nothing for the reference corrector.
    """
    corrector = context.networks.corrector
    if not isinstance(corrector, StatisticsCorrector):
        return {}
    last = corrector.last_layer
    full = {name: value.clone() for name, value in last.state_dict().items()}

    def take(step_size: float) -> None:
        last.load_state_dict({name: step_size * value for name, value in full.items()})

    measured = []
    for step_size in STEP_SIZES:
        take(step_size)
        measured.append(_gains(context, step_size))
    chosen = context.processes.broadcast(choose(measured))
    take(chosen)
    figures = {f"gain_at_{gains.step_size:g}": gains.mean for gains in measured}
    return {"step_size": chosen} | figures


def choose(measured: list[Gains]) -> float:
    """The step size that gains most among those that make nothing worse, else the smallest."""
    harmless = [gains for gains in measured if gains.worst >= 0]
    if not harmless:
        return min(gains.step_size for gains in measured)
    return max(harmless, key=lambda gains: gains.mean).step_size


def _gains(context: StageContext, step_size: float) -> Gains:
    sizes, gains = [], []
    for index in range(_BATCHES):
        # Batches that no step of the stage has drawn.
        batch = context.source.batch(context.settings.steps + index)
        code, _ = context.predicted(batch)
        image = before = context.image(batch, code)
        for _ in range(_ITERS):
            code, _ = context.corrected(batch, image, code)
            image = context.image(batch, code)
        errors = [(each - batch.hr).abs().mean(dim=(1, 2, 3)) for each in (before, image)]
        gains.append((errors[0] - errors[1]).double())
        sizes.append(batch.kernel_parameters[:, :2].mean(dim=1))
    gain, size = torch.cat(gains), torch.cat(sizes)
    quarters = torch.tensor_split(gain[size.argsort()], _BINS)
    worst = min(float(quarter.mean()) for quarter in quarters)
    return Gains(step_size, float(gain.mean()), worst)
