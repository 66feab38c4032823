"""`StageContext`: what all training stages share, i.e. inputs, forward passes and losses.

The compact estimators are trained on the blur's spread in pixels (sigma), the reference estimators
on the code, normalised per component.
"""

from __future__ import annotations

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
"""Number of batches from whose blurs the standard deviation of code components is computed."""


@dataclass(frozen=True)
class StageInputs:
    """The random inputs of one step."""

    batch: Batch
    """Images, blurs and codes."""
    chosen: Tensor
    """Bool `[N,1]`: a random subset of the samples, which the stage treats differently."""
    random_code: Tensor
    """Codes `[N,code_size]` of random blurs that are unrelated to the images."""

    def copy_(self, other: StageInputs) -> None:
        """Copy all tensors of `other` into those of this object."""
        for target, source in zip(self.tensors(), other.tensors(), strict=True):
            target.copy_(source)

    def clone(self) -> StageInputs:
        """Return a deep copy."""
        batch = Batch(*(each.clone() for each in self.batch.tensors()))
        return StageInputs(batch, self.chosen.clone(), self.random_code.clone())

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors, in a fixed order."""
        return (*self.batch.tensors(), self.chosen, self.random_code)


@dataclass(frozen=True, eq=False)
class StageContext(Generic[Networks]):
    """Networks, batches and settings of a stage, and the forward passes that IKC's stages share."""

    networks: Networks
    """Networks on `device`."""
    source: BatchSource
    """Source of the stage's batches."""
    settings: LoopStageRecipe
    """Recipe of the stage."""
    device: torch.device
    """Device of the training."""
    processes: ProcessGroup = SINGLE_PROCESS
    """Processes of the run."""

    @cached_property
    def normalize(self) -> CodeNormalization:
        """Normalisation that gives all components of a code the same weight in a loss."""
        normalization = CodeNormalization(self.networks.architecture.code_size)
        random = np.random.default_rng(0)
        codes = [
            self.source.codes(self.source.kernel_parameters(random)) for _ in range(_NORMALIZED_ON)
        ]
        normalization.fit_to(torch.cat(codes).cpu().numpy())
        return normalization.to(self.device)

    def draw(self, step: int, share: float) -> StageInputs:
        """Return the inputs of a step; a random `share` of the samples is `chosen`."""
        random = self.source.random(step).spawn(1)[0]
        random_code = self.source.codes(self.source.kernel_parameters(random))
        return StageInputs(
            self.source.batch(step), self.source.random_mask(random, share), random_code
        )

    def predict(self: StageContext[IkcNetworks], batch: Batch) -> tuple[Tensor, Tensor]:
        """Run P on a batch; return codes `[N,code_size]` and the loss, a scalar."""
        predictor = self.networks.predictor
        if isinstance(predictor, StatisticsPredictor):
            parameters, levels, *gate = (each.float() for each in _estimates(predictor, batch.lr))
            with self.without_autocast():
                error = parameter_loss(parameters, batch.kernel_parameters) + levels_loss(
                    levels, batch.levels
                )
                for log_odds in gate:
                    error = error + GATE_WEIGHT * gate_loss(log_odds, batch.levels)
                return predictor.code(parameters, levels), error
        code = predictor(batch.lr).float()
        return code, self._code_loss(code, batch.code)

    def correct(
        self: StageContext[IkcNetworks], batch: Batch, sr: Tensor, code: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run C on (sr, code); return codes `[N,code_size]` and the loss, a scalar."""
        corrector = self.networks.corrector
        if isinstance(corrector, StatisticsCorrector):
            step = corrector.step(sr, code).float()
            with self.without_autocast():
                parameters = corrector.chart.kernel_parameters(code) + step
                return corrector.apply_step(code, step), parameter_loss(
                    parameters, batch.kernel_parameters
                )
        after = corrector(sr, code).float()
        return after, self._code_loss(after, batch.code)

    def unclamped_image(self: StageContext[IkcNetworks], lr: Tensor, code: Tensor) -> Tensor:
        """Run F on (lr, code) without its clamp; return `[N,3,sH,sW]`."""
        return self.networks.sftmd.unclamped(lr, code)

    def image(self: StageContext[IkcNetworks], batch: Batch, code: Tensor) -> Tensor:
        """Run F on a batch; return `[N,3,sH,sW]`, float32 and clamped, as C reads it."""
        return self.unclamped_image(batch.lr, code).float().clamp(0, 1)

    def without_autocast(self) -> torch.autocast:
        """Return a context that disables autocast: codes are float32, whatever the convolutions."""
        return torch.autocast(self.device.type, enabled=False)

    def _code_loss(self, code: Tensor, truth: Tensor) -> Tensor:
        return F.smooth_l1_loss(self.normalize(code), self.normalize(truth))


def _estimates(predictor: StatisticsPredictor, lr: Tensor) -> tuple[Tensor, ...]:
    """Return parameters, levels and, for a mixture of experts, the gate's log-odds."""
    if isinstance(predictor, MixturePredictor):
        return predictor.gated_estimates(lr)
    return predictor.estimates(lr)


def gate_loss(log_odds: Tensor, levels: Tensor) -> Tensor:
    """Return the cross-entropy of a gate's log-odds `[N,1]`; the target is any level `[N,L]` >0."""
    degraded = (levels.amax(dim=1, keepdim=True) > 0).to(log_odds.dtype)
    return F.binary_cross_entropy_with_logits(log_odds, degraded)


def levels_loss(levels: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 loss of levels `[N,L]`, quadratic below 0.05; 0 without levels."""
    if levels.shape[1] == 0:
        return levels.new_zeros(())
    return F.smooth_l1_loss(levels, truth, beta=0.05)


def parameter_loss(parameters: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 loss of spreads `[N,S]` in HR pixels, quadratic below 0.1 pixels."""
    return F.smooth_l1_loss(parameters.float(), truth, beta=0.1)
