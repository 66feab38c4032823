"""The stages of training: what each minimises.

1. `sftmd`: F with the true kernel code, L1 on the image (IKC, section 4.1).
2. `predictor`: P on LR images alone.
3. `corrector`: C on the states of its own loop with F frozen. The loop starts from P's code or from
   a random one, takes a few steps, and every step is a sample. Trained on single corrections
   around the truth instead, the loop drifts to a biased fixed point (docs/training.md).
4. `joint` (optional): all three on the images of the loop, so that P and C find the code that
   makes the best image and F makes the best of the codes that it is given.

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
"""Weight of the kernel's error beside the image's in `joint`. Near the truth both then pull about
equally: 0.1 px of sigma cost 0.3 dB, three hundredths of an L1 of 0.025."""


@dataclass(frozen=True, eq=False)
class StageContext:
    """What every stage works with."""

    networks: IkcNetworks
    source: BatchSource
    settings: StageRecipe
    device: torch.device
    processes: ProcessGroup = SINGLE_PROCESS
    compile: bool = False

    @cached_property
    def restore(self) -> Any:
        """F before its clamp: (lr, code) to an image `[N,3,sH,sW]`."""
        unclamped = self.networks.sftmd.unclamped
        return torch.compile(unclamped) if self.compile else unclamped

    @cached_property
    def normalize(self) -> CodeNormalization:
        """Codes in units of each component's spread, in which all components count alike."""
        normalization = CodeNormalization(self.networks.architecture.code_size)
        random = np.random.default_rng(0)
        codes = [
            self.source.codes(self.source.kernel_parameters(random)) for _ in range(_NORMALIZED_ON)
        ]
        normalization.fit_to(torch.cat(codes).cpu().numpy())
        return normalization.to(self.device)

    def predicted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """P's code for a batch and its error."""
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
        """C's code after one step from (sr, code) and its error."""
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
        """F's image as C sees it, in float32."""
        return cast(Tensor, self.restore(batch.lr, code)).float().clamp(0, 1)

    def exactly(self) -> torch.autocast:
        """Codes are computed in float32 also where convolutions are bfloat16."""
        return torch.autocast(self.device.type, enabled=False)

    def _code_loss(self, code: Tensor, truth: Tensor) -> Tensor:
        return F.smooth_l1_loss(self.normalize(code), self.normalize(truth))


_NORMALIZED_ON = 64
"""Batches whose blurs tell how much each component of a code varies."""


class TrainingStage(Protocol):
    """One stage: the module that it trains and the loss of a step."""

    module: nn.Module

    def loss(self, step: int) -> Tensor:
        """A scalar with gradients to `module` only: the mean over this process's samples."""

    def finish(self) -> dict[str, float]:
        """Called after the last step, averaged weights in place; returns figures to log."""


class SftmdStage:
    """F with the true kernel code."""

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.sftmd
        self._context = context

    def loss(self, step: int) -> Tensor:
        batch = self._context.source.batch(step)
        image = self._context.restore(batch.lr, batch.code).float()
        loss = F.l1_loss if self._context.settings.loss == "l1" else F.mse_loss
        return loss(image, batch.hr)

    def finish(self) -> dict[str, float]:
        """Nothing to do."""
        return {}


class PredictorStage:
    """P on LR images."""

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.predictor
        self._context = context

    def loss(self, step: int) -> Tensor:
        _, error = self._context.predicted(self._context.source.batch(step))
        return error

    def finish(self) -> dict[str, float]:
        """Nothing to do."""
        return {}


class CorrectorStage:
    """C on the states of the loop, F and P frozen."""

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = context.networks.corrector
        self._context = context

    def loss(self, step: int) -> Tensor:
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
        """Choose the step size of the loop."""
        return search_step_size(self._context)

    def _start(self, batch: Batch, step: int) -> Tensor:
        """P's code, and anywhere for the share that explores, so that C knows the whole range."""
        source = self._context.source
        random = source.random(step).spawn(1)[0]
        anywhere = source.codes(source.kernel_parameters(random))
        with torch.no_grad():
            predicted, _ = self._context.predicted(batch)
        return torch.where(
            source.chosen(random, self._context.settings.random_start_share), anywhere, predicted
        )


class JointStage:
    """F, P and C on the image loss of the loop: its first image, and one later image of it.

    A gradient passes from an image into the code that made it and into the estimator that gave
    this code, and stops there: through more steps, F would learn to help C by making worse images.
    A share of the batch starts at its true code, so that F still serves a blur that is given and C
    learns to stay where it should.
    """

    def __init__(self, context: StageContext) -> None:
        self.module: nn.Module = nn.ModuleDict(context.networks.modules())
        self._context = context

    def loss(self, step: int) -> Tensor:
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
        """Choose the step size of the loop."""
        return search_step_size(self._context)


STAGES: Final[dict[str, Callable[[StageContext], TrainingStage]]] = {
    "sftmd": SftmdStage,
    "predictor": PredictorStage,
    "corrector": CorrectorStage,
    "joint": JointStage,
}
"""The stages by name, in training order."""


def levels_loss(levels: Tensor, truth: Tensor) -> Tensor:
    """Smooth L1, quadratic below a twentieth of `LEVEL_UNITS`; 0 if there are no levels."""
    if levels.shape[1] == 0:
        return levels.new_zeros(())
    return F.smooth_l1_loss(levels, truth, beta=0.05)


def parameter_loss(parameters: Tensor, truth: Tensor) -> Tensor:
    """Smooth L1 in pixels, quadratic below a tenth of a pixel."""
    return F.smooth_l1_loss(parameters.float(), truth, beta=0.1)
