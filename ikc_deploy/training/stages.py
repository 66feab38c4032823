"""The stages of training and their losses.

1. `predictor`: P on LR images alone.
2. `sftmd`: F with the true kernel code (IKC, section 4.1), or with P's for a share of the batch, as
   F meets P's errors in use (DCLS trains so, too); L1 on the image.
3. `corrector`: C on the states of its own loop with F frozen. The loop starts from P's code or from
   a random one, makes a few steps, and every step is a sample. If C is trained on single
   corrections near the truth instead, the loop drifts to a biased fixed point (docs/training.md).
4. `joint` (optional): all three on the images of the loop, so that P and C find the code of the
   best image and F uses the estimated codes as well as possible.

DAN has one stage, `dan`: Restorer and Estimator end to end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.networks.dan import Dan2Estimator
from ikc_deploy.networks.loop_networks import DanNetworks, IkcNetworks
from ikc_deploy.networks.predictor import MixturePredictor
from ikc_deploy.training.batches import Batch
from ikc_deploy.training.loop_recipe import ImageLoss
from ikc_deploy.training.offset_search import search_offset
from ikc_deploy.training.stage_context import Networks, StageContext, StageInputs
from ikc_deploy.training.step_size_search import search_step_size
from ikc_deploy.training.training_task import TrainingStage

KERNEL_WEIGHT: Final = 0.02
"""Weight of the kernel's error relative to the image's in `joint`. Near the truth both have about
the same influence: 0.1 px of sigma cost 0.3 dB, three hundredths of an L1 of 0.025."""


class LoopStage(TrainingStage, Generic[Networks]):
    """A stage of the training of a loop's networks.

    Args:
        context: What the stages share: networks, batches and settings.
    """

    trains: ClassVar[str | None] = None
    """Graph of the network that is trained; None for all."""

    def __init__(self, context: StageContext[Networks]) -> None:
        modules = context.networks.modules()
        self.module = nn.ModuleDict(modules) if self.trains is None else modules[self.trains]
        self._context = context


class PredictorStage(LoopStage[IkcNetworks]):
    """The training of P on LR images; of a mixture of experts, the gate alone.

    Trained together, experts would lose what they are experts in.

    Args:
        context: What the stages share: networks, batches and settings.
    """

    trains = "predictor"
    recordable = True

    def __init__(self, context: StageContext[IkcNetworks]) -> None:
        super().__init__(context)
        if isinstance(context.networks.predictor, MixturePredictor):
            self.module = context.networks.predictor.gate

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step."""
        return self._context.draw(step, 0.0)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the error of P, with gradients to P."""
        _, error = self._context.predicted(inputs.batch)
        return error

    def finish(self) -> dict[str, float]:
        """Search the offset of P's sigma, if the recipe says so; return figures to log."""
        return search_offset(self._context) if self._context.settings.offset_search else {}


class SftmdStage(LoopStage[IkcNetworks]):
    """The training of F with the true kernel code, or P's for a share of the batch."""

    trains = "sftmd"
    recordable = True

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
        return image_loss(image, batch.hr, settings.loss)

    def finish(self) -> dict[str, float]:
        """Search the offset of P's sigma, if the recipe says so; return figures to log."""
        return search_offset(self._context) if self._context.settings.offset_search else {}


class CorrectorStage(LoopStage[IkcNetworks]):
    """The training of C on the states of the loop, F and P frozen."""

    trains = "corrector"
    recordable = True

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


class JointStage(LoopStage[IkcNetworks]):
    """The training of F, P and C on the loss of the first image and one later image of the loop.

    A gradient passes from an image into its code and into the estimator of this code, and stops
    there: through more steps, F would learn to help C by producing worse images. A share of the
    batch starts at its true code, so F still supports known blurs and C learns to keep a correct
    code.
    """

    _corrections = 0

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


class DanStage(LoopStage[DanNetworks]):
    """The training of Restorer and Estimator on the last iteration of their loop.

    Neither network's gradients reach the other: codes and images between them are detached. With
    only the last iteration supervised, earlier ones need no gradients, so a step takes the memory
    of one iteration, for any length of the loop.

    Args:
        context: What the stages share: networks, batches and settings.
    """

    recordable = True

    def __init__(self, context: StageContext[DanNetworks]) -> None:
        super().__init__(context)
        self._start = torch.from_numpy(context.networks.basis.delta_code()).to(context.device)

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step."""
        return self._context.draw(step, 0.0)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the sum of the image loss and the kernel loss of the last iteration."""
        batch, settings = inputs.batch, self._context.settings
        restorer = self._context.networks.restorer
        code = self._start.expand(len(batch.lr), -1)
        with torch.no_grad():
            for _ in range(settings.unroll - 1):
                code, _ = self._estimated(restorer(batch.lr, code), batch)
        sr = restorer(batch.lr, code).float()
        _, kernel_error = self._estimated(sr.detach(), batch)
        return image_loss(sr, batch.hr, settings.loss) + kernel_error

    def _estimated(self, sr: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the Estimator's codes, and its error: the mean L1 of kernels, or of v1's codes."""
        estimator = self._context.networks.estimator
        # In float32 also beside a Restorer in bfloat16: it is small, and codes are exact.
        with self._context.exactly():
            if not isinstance(estimator, Dan2Estimator):
                code: Tensor = estimator(sr.float(), batch.lr)
                return code, F.l1_loss(code, batch.code)
            kernels = estimator.kernels(sr.float(), batch.lr)
            truth = self._context.source.kernels(batch.kernel_parameters)
            return kernels @ estimator.encoder, F.l1_loss(kernels, truth)


def image_loss(image: Tensor, truth: Tensor, loss: ImageLoss) -> Tensor:
    """Return the mean L1 or squared error of images `[N,3,H,W]`."""
    return F.l1_loss(image, truth) if loss == "l1" else F.mse_loss(image, truth)


STAGES: Final[dict[str, Callable[[StageContext[Any]], TrainingStage]]] = {
    "predictor": PredictorStage,
    "sftmd": SftmdStage,
    "corrector": CorrectorStage,
    "joint": JointStage,
    "dan": DanStage,
}
"""Stages of all loops by name, in training order."""
