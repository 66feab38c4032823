"""The stages of training and their losses.

1. `sftmd`: F with the true kernel code, L1 on the image (IKC, section 4.1).
2. `predictor`: P on LR images alone.
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
from typing import Any, Final, Protocol, cast

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
    compile: bool = False
    """Whether torch.compile compiles F."""

    @cached_property
    def restore(self) -> Any:
        """F without its clamp: (lr, code) to an SR image `[N,3,sH,sW]`."""
        unclamped = self.networks.sftmd.unclamped
        return torch.compile(unclamped) if self.compile else unclamped

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
        return cast(Tensor, self.restore(batch.lr, code)).float().clamp(0, 1)

    def exactly(self) -> torch.autocast:
        """Return a context without autocast: codes are float32, even with bfloat16 convolutions."""
        return torch.autocast(self.device.type, enabled=False)

    def _code_loss(self, code: Tensor, truth: Tensor) -> Tensor:
        return F.smooth_l1_loss(self.normalize(code), self.normalize(truth))


_NORMALIZED_ON = 64
"""Number of batches whose blurs determine the deviation of each component of a code."""


class TrainingStage(Protocol):
    """A stage: the module that it trains, and the loss of a step."""

    module: nn.Module
    """Module that is trained, in place."""

    def loss(self, step: int) -> Tensor:
        """Return the mean loss of this process's samples, with gradients to `module` only."""

    def finish(self) -> dict[str, float]:
        """Finish the stage after its last step, with averaged weights; return figures to log."""


class SftmdStage:
    """The training of F with the true kernel code."""

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.sftmd
        self._context = context

    def loss(self, step: int) -> Tensor:
        """Return the image loss of a step, with gradients to F."""
        batch = self._context.source.batch(step)
        image = self._context.restore(batch.lr, batch.code).float()
        loss = F.l1_loss if self._context.settings.loss == "l1" else F.mse_loss
        return loss(image, batch.hr)

    def finish(self) -> dict[str, float]:
        """Return no figures; there is nothing to do."""
        return {}


class PredictorStage:
    """The training of P on LR images."""

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.predictor
        self._context = context

    def loss(self, step: int) -> Tensor:
        """Return the error of P in a step, with gradients to P."""
        _, error = self._context.predicted(self._context.source.batch(step))
        return error

    def finish(self) -> dict[str, float]:
        """Return no figures; there is nothing to do."""
        return {}


class CorrectorStage:
    """The training of C on the states of the loop, F and P frozen."""

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.corrector
        self._context = context

    def loss(self, step: int) -> Tensor:
        """Return the mean error of C in a step, with gradients to C."""
        context = self._context
        batch = context.source.batch(step)
        code = self._start(batch, step)
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

    def _start(self, batch: Batch, step: int) -> Tensor:
        """Return P's codes, a share of them random instead, so that C learns the whole range."""
        source = self._context.source
        random = source.random(step).spawn(1)[0]
        anywhere = source.codes(source.kernel_parameters(random))
        with torch.no_grad():
            predicted, _ = self._context.predicted(batch)
        return torch.where(
            source.chosen(random, self._context.settings.random_start_share), anywhere, predicted
        )


class JointStage:
    """The training of F, P and C on the loss of the first image and one later image of the loop.

    A gradient passes from an image into its code and into the estimator of this code, and stops
    there: through more steps, F would learn to help C by producing worse images. A share of the
    batch starts at its true code, so F still supports known blurs and C learns to keep a correct
    code.
    """

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = nn.ModuleDict(context.networks.modules())
        self._context = context

    def loss(self, step: int) -> Tensor:
        """Return the loss of a step, with gradients to all three networks."""
        context = self._context
        batch = context.source.batch(step)
        random = context.source.random(step).spawn(1)[0]
        given = context.source.chosen(random, context.settings.random_start_share)
        predicted, predictor_error = context.predicted(batch)
        code = torch.where(given, batch.code, predicted)
        first = context.restore(batch.lr, code).float()
        sr, code = first.detach().clamp(0, 1), code.detach()
        with torch.no_grad():
            for _ in range(int(random.integers(context.settings.unroll))):
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
    "sftmd": SftmdStage,
    "predictor": PredictorStage,
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
