"""The stages of training and their losses.

1. `predictor`: P on LR images alone.
2. `sftmd`: F with the true kernel code (IKC, section 4.1), or with P's for a share of the batch, as
   F meets P's errors in use (DCLS trains so, too); L1 on the image.
3. `corrector`: C on the states of its own loop with F frozen. The loop starts from P's code or from
   a random one, makes a few steps, and every step is a sample. If C is trained on single
   corrections near the truth instead, the loop drifts to a biased fixed point (docs/training.md).
4. `joint` (optional): all three on the images of the loop, so that P and C find the code of the
   best image and F uses the estimated codes as well as possible.

The compact estimators are trained on the spread of the blur in pixels (sigma), the reference ones
on the code, normalised per component.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.networks.corrector import StatisticsCorrector
from ikc_deploy.networks.predictor import StatisticsPredictor
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.training.batches import Batch, BatchSource
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.recipes import StageRecipe
from ikc_deploy.training.step_size_search import search_step_size

KERNEL_WEIGHT: Final = 0.02
"""Weight of the kernel's error relative to the image's in `joint`. Near the truth both have about
the same influence: 0.1 px of sigma cost 0.3 dB, three hundredths of an L1 of 0.025."""


@dataclass(frozen=True, eq=False)
class StageContext:
    """The inputs of every stage, and the computations that stages share."""

    networks: IkcNetworks
    """Networks on `device`."""
    source: BatchSource
    """Source of the stage's batches."""
    settings: StageRecipe
    """Settings of the stage."""
    device: torch.device
    """Device of the training."""
    processes: ProcessGroup = SINGLE_PROCESS
    """Processes of the run."""
    @property
    def restore(self) -> Callable[[Tensor, Tensor], Tensor]:
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

    def predicted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return P's code `[N,code_size]` for a batch, and its error, a scalar."""
        predictor = self.networks.predictor
        if isinstance(predictor, StatisticsPredictor):
            parameters, levels = (each.float() for each in predictor.readings(batch.lr))
            with self.exactly():
                error = parameter_loss(parameters, batch.kernel_parameters) + levels_loss(
                    levels, batch.levels
                )
                return predictor.code(parameters, levels), error
        code = predictor(batch.lr).float()
        return code, self._code_loss(code, batch.code)

    def corrected(self, batch: Batch, sr: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
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

    def image(self, batch: Batch, code: Tensor) -> Tensor:
        """Return F's image `[N,3,sH,sW]` as the input of C: float32, clamped."""
        return self.restore(batch.lr, code).float().clamp(0, 1)

    def exactly(self) -> torch.autocast:
        """Return a context without autocast: codes are float32, even with bfloat16 convolutions."""
        return torch.autocast(self.device.type, enabled=False)

    def _code_loss(self, code: Tensor, truth: Tensor) -> Tensor:
        return F.smooth_l1_loss(self.normalize(code), self.normalize(truth))


_NORMALIZED_ON = 64
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
        for ours, theirs in zip(self.tensors(), other.tensors(), strict=True):
            ours.copy_(theirs)

    def clone(self) -> StageInputs:
        """Return a copy in memory of its own."""
        batch = Batch(*(each.clone() for each in self.batch.tensors()))
        return StageInputs(batch, self.chosen.clone(), self.random_code.clone())

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors, in a fixed order."""
        return (*self.batch.tensors(), self.chosen, self.random_code)


class TrainingStage(Protocol):
    """A stage: the module that it trains, and the loss of a step."""

    module: nn.Module
    """Module that is trained, in place."""
    recordable: bool
    """Whether a step computes the same operations for all inputs, so that a CUDA graph of one step
    can be replayed for all."""

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step; they depend on (seed, stage, step) alone."""

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the mean loss of this process's samples, with gradients to `module` only."""

    def finish(self) -> dict[str, float]:
        """Finish the stage after its last step, with averaged weights; return figures to log."""


class PredictorStage:
    """The training of P on LR images."""

    recordable = True

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.predictor
        self._context = context

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step."""
        return self._context.draw(step, 0.0)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the error of P, with gradients to P."""
        _, error = self._context.predicted(inputs.batch)
        return error

    def finish(self) -> dict[str, float]:
        """Return no figures; there is nothing to do."""
        return {}


class SftmdStage:
    """The training of F with the true kernel code, or P's for a share of the batch."""

    recordable = True

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.sftmd
        self._context = context

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step; the chosen samples get P's code."""
        return self._context.draw(step, self._context.settings.predicted_share)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the image loss, with gradients to F."""
        batch, settings = inputs.batch, self._context.settings
        code = batch.code
        if settings.predicted_share:
            with torch.no_grad():
                predicted, _ = self._context.predicted(batch)
            code = torch.where(inputs.chosen, predicted, code)
        image = self._context.restore(batch.lr, code).float()
        loss = F.l1_loss if settings.loss == "l1" else F.mse_loss
        return loss(image, batch.hr)

    def finish(self) -> dict[str, float]:
        """Return no figures; there is nothing to do."""
        return {}


class CorrectorStage:
    """The training of C on the states of the loop, F and P frozen."""

    recordable = True

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.corrector
        self._context = context

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step; the chosen samples start at a random code.

        So C learns the whole range, not only the surroundings of P's codes.
        """
        return self._context.draw(step, self._context.settings.random_start_share)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the mean error of C, with gradients to C."""
        context, batch = self._context, inputs.batch
        with torch.no_grad():
            predicted, _ = context.predicted(batch)
        code = torch.where(inputs.chosen, inputs.random_code, predicted)
        errors = []
        for _ in range(context.settings.unroll):
            with torch.no_grad():
                sr = context.image(batch, code)
            code, error = context.corrected(batch, sr, code)
            code = code.detach()
            errors.append(error)
        return torch.stack(errors).mean()

    def finish(self) -> dict[str, float]:
        """Choose the step size of the loop; return the gains of all."""
        return search_step_size(self._context)


class JointStage:
    """The training of F, P and C on the loss of the first image and one later image of the loop.

    A gradient passes from an image into its code and into the estimator of this code, and stops
    there: through more steps, F would learn to help C by producing worse images. A share of the
    batch starts at its true code, so F still supports known blurs and C learns to keep a correct
    code.
    """

    recordable = False

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = nn.ModuleDict(context.networks.modules())
        self._context = context
        self._corrections = 0

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step; the chosen samples start at their true code."""
        settings = self._context.settings
        random = self._context.source.random(step).spawn(2)[1]
        self._corrections = int(random.integers(settings.unroll))
        return self._context.draw(step, settings.random_start_share)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the loss, with gradients to all three networks."""
        context, batch = self._context, inputs.batch
        predicted, predictor_error = context.predicted(batch)
        code = torch.where(inputs.chosen, batch.code, predicted)
        first = context.restore(batch.lr, code).float()
        sr, code = first.detach().clamp(0, 1), code.detach()
        with torch.no_grad():
            for _ in range(self._corrections):
                code, _ = context.corrected(batch, sr, code)
                sr = context.image(batch, code)
        code, corrector_error = context.corrected(batch, sr, code)
        later = context.restore(batch.lr, code).float()
        images = 0.5 * (F.l1_loss(first, batch.hr) + F.l1_loss(later, batch.hr))
        return images + 0.5 * KERNEL_WEIGHT * (predictor_error + corrector_error)

    def finish(self) -> dict[str, float]:
        """Choose the step size of the loop; return the gains of all."""
        return search_step_size(self._context)


STAGES: Final[dict[str, Callable[[StageContext], TrainingStage]]] = {
    "predictor": PredictorStage,
    "sftmd": SftmdStage,
    "corrector": CorrectorStage,
    "joint": JointStage,
}
"""Stages by name, in training order."""


def levels_loss(levels: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 of levels `[N,L]`, quadratic below 0.05; 0 if there are no levels."""
    if levels.shape[1] == 0:
        return levels.new_zeros(())
    return F.smooth_l1_loss(levels, truth, beta=0.05)


def parameter_loss(parameters: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 of spreads `[N,S]` in HR pixels, quadratic below 0.1 pixel."""
    return F.smooth_l1_loss(parameters.float(), truth, beta=0.1)
