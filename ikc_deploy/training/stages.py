"""The stages of training and their losses.

1. `predictor`: P on LR images.
2. `sftmd`: F with the true kernel code (IKC, section 4.1), or with P's code for a share of the
   batch, because F has to cope with P's errors in use (as in DCLS); L1 loss on the image.
3. `corrector`: C on the states of its own loop, with F frozen. The loop starts from P's code or a
   random one and runs a few steps, each of which is a sample. If C is trained on single corrections
   near the truth instead, the loop drifts to a biased fixed point (docs/training.md).
4. `joint` (optional): all three networks on the images of the loop, so that P and C find the code
   of the best image, and F makes the best use of estimated codes.

DAN has a single stage, `dan`, which trains Restorer and Estimator end to end.
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
"""Weight of the kernel loss relative to the image loss in `joint`. Near the truth both have about
the same influence: an error of 0.1 px in sigma costs 0.3 dB, i.e. 3 % of an L1 of 0.025."""


class LoopStage(TrainingStage, Generic[Networks]):
    """A stage of the training of a loop's networks.

    Args:
        context: Networks, batches and settings.
    """

    trains: ClassVar[str | None] = None
    """Graph of the network that is trained; None for all."""

    def __init__(self, context: StageContext[Networks]) -> None:
        modules = context.networks.modules()
        self.module = nn.ModuleDict(modules) if self.trains is None else modules[self.trains]
        self._context = context


class PredictorStage(LoopStage[IkcNetworks]):
    """The training of P on LR images; only the gate of a mixture of experts is trained.

    If the experts were trained together, they would lose their specialisation.

    Args:
        context: Networks, batches and settings.
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
        """Return the loss of P, with gradients for P."""
        _, error = self._context.predict(inputs.batch)
        return error

    def finish(self) -> dict[str, float]:
        """Search the offset of P's sigma if the recipe enables it; return figures to log."""
        return search_offset(self._context) if self._context.settings.offset_search else {}


class SftmdStage(LoopStage[IkcNetworks]):
    """The training of F with the true kernel code, or P's for a share of the batch."""

    trains = "sftmd"
    recordable = True

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step; the chosen samples get P's code."""
        return self._context.draw(step, self._context.settings.predicted_share)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the image loss, with gradients for F."""
        batch, settings = inputs.batch, self._context.settings
        code = batch.code
        if settings.predicted_share:
            with torch.no_grad():
                predicted, _ = self._context.predict(batch)
            code = torch.where(inputs.chosen, predicted, code)
        image = self._context.unclamped_image(batch.lr, code).float()
        return image_loss(image, batch.hr, settings.loss)

    def finish(self) -> dict[str, float]:
        """Search the offset of P's sigma if the recipe enables it; return figures to log."""
        return search_offset(self._context) if self._context.settings.offset_search else {}


class CorrectorStage(LoopStage[IkcNetworks]):
    """The training of C on the states of the loop, with F and P frozen."""

    trains = "corrector"
    recordable = True

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step; the chosen samples start from a random code.

        This way C learns the whole range of blurs, not only codes close to those of P.
        """
        return self._context.draw(step, self._context.settings.random_start_share)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the mean loss of C over the steps, with gradients for C."""
        context, batch = self._context, inputs.batch
        with torch.no_grad():
            predicted, _ = context.predict(batch)
        code = torch.where(inputs.chosen, inputs.random_code, predicted)
        errors = []
        for _ in range(context.settings.unroll):
            with torch.no_grad():
                sr = context.image(batch, code)
            code, error = context.correct(batch, sr, code)
            code = code.detach()
            errors.append(error)
        return torch.stack(errors).mean()

    def finish(self) -> dict[str, float]:
        """Search the step size of the loop; return figures to log."""
        return search_step_size(self._context)


class JointStage(LoopStage[IkcNetworks]):
    """The training of F, P and C on the first image and one later image of the loop.

    Gradients flow from an image to its code and the network that estimated it, and stop there:
    through more steps, F would learn to help C by producing worse images. A share of the batch
    starts from the true code, so that F still supports known blurs, and C learns to keep a correct
    code.
    """

    _corrections = 0

    def draw(self, step: int) -> StageInputs:
        """Return the inputs of a step; the chosen samples start from their true code."""
        settings = self._context.settings
        random = self._context.source.random(step).spawn(2)[1]
        self._corrections = int(random.integers(settings.unroll))
        return self._context.draw(step, settings.random_start_share)

    def loss(self, inputs: StageInputs) -> Tensor:
        """Return the loss, with gradients for all three networks."""
        context, batch = self._context, inputs.batch
        predicted, predictor_error = context.predict(batch)
        code = torch.where(inputs.chosen, batch.code, predicted)
        first = context.unclamped_image(batch.lr, code).float()
        sr, code = first.detach().clamp(0, 1), code.detach()
        with torch.no_grad():
            for _ in range(self._corrections):
                code, _ = context.correct(batch, sr, code)
                sr = context.image(batch, code)
        code, corrector_error = context.correct(batch, sr, code)
        later = context.unclamped_image(batch.lr, code).float()
        images = 0.5 * (F.l1_loss(first, batch.hr) + F.l1_loss(later, batch.hr))
        return images + 0.5 * KERNEL_WEIGHT * (predictor_error + corrector_error)

    def finish(self) -> dict[str, float]:
        """Search the step size of the loop; return figures to log."""
        return search_step_size(self._context)


class DanStage(LoopStage[DanNetworks]):
    """The training of Restorer and Estimator on the last iteration of their loop.

    Codes and images that are passed between the networks are detached. Only the last iteration is
    supervised, so earlier ones need no gradients, and a step needs the memory of one iteration,
    whatever the length of the loop.

    Args:
        context: Networks, batches and settings.
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
        """Run the Estimator; return codes and the loss: L1 of kernels, or of codes for DANv1."""
        estimator = self._context.networks.estimator
        # Always float32: the network is small, and codes must be exact.
        with self._context.without_autocast():
            if not isinstance(estimator, Dan2Estimator):
                code: Tensor = estimator(sr.float(), batch.lr)
                return code, F.l1_loss(code, batch.code)
            kernels = estimator.kernels(sr.float(), batch.lr)
            truth = self._context.source.kernels(batch.kernel_parameters)
            return kernels @ estimator.encoder, F.l1_loss(kernels, truth)


def image_loss(image: Tensor, truth: Tensor, loss: ImageLoss) -> Tensor:
    """Return the L1 or L2 loss of images `[N,3,H,W]`."""
    return F.l1_loss(image, truth) if loss == "l1" else F.mse_loss(image, truth)


STAGES: Final[dict[str, Callable[[StageContext[Any]], TrainingStage]]] = {
    "predictor": PredictorStage,
    "sftmd": SftmdStage,
    "corrector": CorrectorStage,
    "joint": JointStage,
    "dan": DanStage,
}
"""Stages of all loops by name, in training order."""
