"""What the stages of training share: the inputs of a step, the loop's computations, their errors.

The compact estimators are trained on the spread of the blur in pixels (sigma), the reference ones
on the code, normalised per component.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ikc_deploy.networks.corrector import StatisticsCorrector
from ikc_deploy.networks.loop_networks import IkcNetworks, LoopNetworks
from ikc_deploy.networks.predictor import MixturePredictor, StatisticsPredictor
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.training.batches import Batch, BatchSource
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.loop_recipe import LoopStageRecipe

Networks = TypeVar("Networks", bound=LoopNetworks)
"""Networks of one loop."""

GATE_WEIGHT: Final = 0.2
"""Weight of the gate's cross-entropy relative to the error of sigma in pixels."""

_NORMALIZED_ON: Final = 64
"""Number of batches whose blurs determine the deviation of each component of a code."""


@dataclass(frozen=True)
class StageInputs:
    """The random inputs of one step: all that differs from step to step."""

    batch: Batch
    """Images, blurs and codes."""
    chosen: Tensor
    """Bool `[N,1]`: the samples that a stage treats in its second way."""
    random_code: Tensor
    """Codes `[N,code_size]` of other random blurs."""

    def copy_(self, other: StageInputs) -> None:
        """Overwrite all tensors with those of `other`."""
        for target, source in zip(self.tensors(), other.tensors(), strict=True):
            target.copy_(source)

    def clone(self) -> StageInputs:
        """Return a copy in memory of its own."""
        batch = Batch(*(each.clone() for each in self.batch.tensors()))
        return StageInputs(batch, self.chosen.clone(), self.random_code.clone())

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors, in a fixed order."""
        return (*self.batch.tensors(), self.chosen, self.random_code)


@dataclass(frozen=True, eq=False)
class StageContext(Generic[Networks]):
    """The inputs of every stage, and the computations that the stages of IKC share."""

    networks: Networks
    """Networks on `device`."""
    source: BatchSource
    """Source of the stage's batches."""
    settings: LoopStageRecipe
    """Settings of the stage."""
    device: torch.device
    """Device of the training."""
    processes: ProcessGroup = SINGLE_PROCESS
    """Processes of the run."""

    @property
    def restore(self: StageContext[IkcNetworks]) -> Callable[[Tensor, Tensor], Tensor]:
        """F without its clamp: (lr, code) to an SR image `[N,3,sH,sW]`."""
        return self.networks.sftmd.unclamped

    @cached_property
    def normalize(self) -> CodeNormalization:
        """Normalisation of codes by the deviation of each component: all have equal weight."""
        normalization = CodeNormalization(self.networks.architecture.code_size)
        random = np.random.default_rng(0)
        codes = [
            self.source.codes(self.source.kernel_parameters(random)) for _ in range(_NORMALIZED_ON)
        ]
        normalization.fit_to(torch.cat(codes).cpu().numpy())
        return normalization.to(self.device)

    def draw(self, step: int, share: float) -> StageInputs:
        """Return the batch of a step, with a random `share` of its samples chosen."""
        random = self.source.random(step).spawn(1)[0]
        random_code = self.source.codes(self.source.kernel_parameters(random))
        return StageInputs(self.source.batch(step), self.source.chosen(random, share), random_code)

    def predicted(self: StageContext[IkcNetworks], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return P's code `[N,code_size]` for a batch, and its error, a scalar."""
        predictor = self.networks.predictor
        if isinstance(predictor, StatisticsPredictor):
            parameters, levels, *gate = (each.float() for each in _readings(predictor, batch.lr))
            with self.exactly():
                error = parameter_loss(parameters, batch.kernel_parameters) + levels_loss(
                    levels, batch.levels
                )
                for log_odds in gate:
                    error = error + GATE_WEIGHT * gate_loss(log_odds, batch.levels)
                return predictor.code(parameters, levels), error
        code = predictor(batch.lr).float()
        return code, self._code_loss(code, batch.code)

    def corrected(
        self: StageContext[IkcNetworks], batch: Batch, sr: Tensor, code: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return C's code `[N,code_size]` after a step from (sr, code), and its error, a scalar."""
        corrector = self.networks.corrector
        if isinstance(corrector, StatisticsCorrector):
            step = corrector.step(sr, code).float()
            with self.exactly():
                parameters = corrector.chart.kernel_parameters(code) + step
                return corrector.moved(code, step), parameter_loss(
                    parameters, batch.kernel_parameters
                )
        after = corrector(sr, code).float()
        return after, self._code_loss(after, batch.code)

    def image(self: StageContext[IkcNetworks], batch: Batch, code: Tensor) -> Tensor:
        """Return F's image `[N,3,sH,sW]` as the input of C: float32, clamped."""
        return self.restore(batch.lr, code).float().clamp(0, 1)

    def exactly(self) -> torch.autocast:
        """Return a context without autocast: codes are float32, even with bfloat16 convolutions."""
        return torch.autocast(self.device.type, enabled=False)

    def _code_loss(self, code: Tensor, truth: Tensor) -> Tensor:
        return F.smooth_l1_loss(self.normalize(code), self.normalize(truth))


def _readings(predictor: StatisticsPredictor, lr: Tensor) -> tuple[Tensor, ...]:
    """Return parameters, levels and, of a mixture, the gate."""
    if isinstance(predictor, MixturePredictor):
        return predictor.gated_readings(lr)
    return predictor.readings(lr)


def gate_loss(log_odds: Tensor, levels: Tensor) -> Tensor:
    """Return the cross-entropy of a gate `[N,1]` against whether any level `[N,L]` is above 0."""
    degraded = (levels.amax(dim=1, keepdim=True) > 0).to(log_odds.dtype)
    return F.binary_cross_entropy_with_logits(log_odds, degraded)


def levels_loss(levels: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 of levels `[N,L]`, quadratic below 0.05; 0 if there are no levels."""
    if levels.shape[1] == 0:
        return levels.new_zeros(())
    return F.smooth_l1_loss(levels, truth, beta=0.05)


def parameter_loss(parameters: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 of spreads `[N,S]` in HR pixels, quadratic below 0.1 pixel."""
    return F.smooth_l1_loss(parameters.float(), truth, beta=0.1)
