"""The stages of training: what each draws, computes and minimises.

1. `sftmd`: F with the true kernel code, L1 on the image (IKC, section 4.1).
2. `predictor`: P on LR images alone.
3. `corrector`: C on the states of its own loop with F frozen. The loop starts from P's code or from
   a random one, takes a few steps, and every step is a sample. Trained on single corrections
   around the truth instead, the loop drifts to a biased fixed point (docs/training.md).
4. `joint` (optional): F on the codes that the loop arrives at, and C on the images of this F.

The compact estimators are trained on sigma, the reference ones on the code, normalised per
component. A batch depends on (seed, stage, step) alone, so a resumed run draws what an unbroken
one would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.networks.corrector import StatisticsCorrector
from ikc_deploy.networks.predictor import StatisticsPredictor
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.degradation import degrade, gaussian_kernels
from ikc_deploy.training.recipes import Recipe, StageRecipe

DAMPINGS: Final = (1.0, 0.5, 0.25, 0.15, 0.1, 0.05)
"""Step sizes that the corrector's line search tries."""

_SEARCH_BATCHES = 6
_SEARCH_ITERS = 7


@dataclass(frozen=True)
class Batch:
    """What one step sees; images in [0,1]."""

    hr: Tensor
    """`[N,3,sH,sW]`"""
    lr: Tensor
    """`[N,3,H,W]`, on the 8-bit grid"""
    sigma: Tensor
    """`[N,1]` in HR pixels"""
    code: Tensor
    """`[N,code_size]`, the true kernel's"""


class BatchSource:
    """Draws the batches of one stage."""

    def __init__(
        self, crops: CropSource, networks: IkcNetworks, recipe: Recipe, stage: str
    ) -> None:
        self._recipe = recipe
        self._stage = recipe.stages[stage]
        self._number = list(recipe.stages).index(stage)
        self._settings = networks.architecture
        self._basis = networks.basis
        self._side = self._stage.patch * self._settings.scale
        self._crops = crops.at_least(self._side)

    def random(self, step: int) -> np.random.Generator:
        """The random numbers of a step."""
        return np.random.default_rng((self._recipe.seed, self._number, step))

    def batch(self, step: int, device: torch.device) -> Batch:
        """The batch of a step."""
        random = self.random(step)
        crops = self._crops.crops(random, self._stage.batch, self._side)
        hr = crops.to(device).to(torch.float32, memory_format=torch.channels_last) / 255
        low, high = self._settings.sigma_range
        drawn = random.uniform(low, high, self._stage.batch)
        sigma = torch.from_numpy(drawn).to(device, torch.float32)
        kernels = gaussian_kernels(sigma, self._basis.kernel_size)
        code = torch.from_numpy(self._basis.code_of_sigma(drawn)).to(device)
        lr = degrade(hr, kernels, self._settings.scale)
        return Batch(hr, lr.contiguous(memory_format=torch.channels_last), sigma[:, None], code)


class Stage(Protocol):
    """One stage: the module that it trains and the loss of a step."""

    module: nn.Module

    def loss(self, step: int) -> Tensor:
        """A scalar with gradients to `module` only."""

    def finish(self) -> dict[str, float]:
        """Called after the last step, averaged weights in place; returns figures to log."""


class SftmdStage:
    """F with the true kernel code."""

    def __init__(self, networks: IkcNetworks, source: BatchSource, device: torch.device) -> None:
        self.module: nn.Module = networks.sftmd
        self._sftmd = networks.sftmd
        self._source = source
        self._device = device

    def loss(self, step: int) -> Tensor:
        batch = self._source.batch(step, self._device)
        return F.l1_loss(self._sftmd.unclamped(batch.lr, batch.code).float(), batch.hr)

    def finish(self) -> dict[str, float]:
        """Nothing to do."""
        return {}


class PredictorStage:
    """P on LR images."""

    def __init__(self, networks: IkcNetworks, source: BatchSource, device: torch.device) -> None:
        self.module: nn.Module = networks.predictor
        self._predictor = networks.predictor
        self._normalize = _code_normalization(networks).to(device)
        self._source = source
        self._device = device

    def loss(self, step: int) -> Tensor:
        batch = self._source.batch(step, self._device)
        if isinstance(self._predictor, StatisticsPredictor):
            return _sigma_loss(self._predictor.sigma(batch.lr), batch.sigma)
        code = self._predictor(batch.lr).float()
        return F.smooth_l1_loss(self._normalize(code), self._normalize(batch.code))

    def finish(self) -> dict[str, float]:
        """Nothing to do."""
        return {}


class CorrectorStage:
    """C on the states of the loop, F and P frozen."""

    def __init__(
        self,
        networks: IkcNetworks,
        source: BatchSource,
        device: torch.device,
        settings: StageRecipe,
    ) -> None:
        self.module: nn.Module = networks.corrector
        self._networks = networks
        self._corrector = networks.corrector
        self._normalize = _code_normalization(networks).to(device)
        self._source = source
        self._device = device
        self._settings = settings

    def loss(self, step: int) -> Tensor:
        loss, _ = self.unrolled(self._source.batch(step, self._device), step)
        return loss

    @torch.no_grad()
    def finish(self) -> dict[str, float]:
        """Line search of the step size: the damping that serves the loop best on fresh crops.

        C and P read almost the same evidence, and a full step throws P's reading away; a damped
        one averages the two. Only the compact corrector, whose step is one number.
        """
        if not isinstance(self._corrector, StatisticsCorrector):
            return {}
        last = self._corrector.last_layer
        full = {name: value.clone() for name, value in last.state_dict().items()}
        errors: dict[float, NDArray[np.float64]] = {}
        for damping in DAMPINGS:
            last.load_state_dict({name: damping * value for name, value in full.items()})
            errors[damping] = self._loop_errors()
        best = errors[min(DAMPINGS, key=lambda damping: errors[damping].mean())]
        # Of the steps that no batch tells from the best one, the smallest drifts least.
        behind = {damping: errors[damping] - best for damping in DAMPINGS}
        chosen = min(
            damping
            for damping, excess in behind.items()
            if excess.mean() <= excess.std() / len(excess) ** 0.5
        )
        last.load_state_dict({name: chosen * value for name, value in full.items()})
        figures = {f"error_at_{damping:g}": float(errors[damping].mean()) for damping in DAMPINGS}
        return {"damping": chosen} | figures

    def _loop_errors(self) -> NDArray[np.float64]:
        """Mean absolute sigma error after seven steps from P's code, by batch, on fresh crops."""
        curve, errors = cast(StatisticsCorrector, self._corrector).curve, []
        for batch_index in range(_SEARCH_BATCHES):
            batch = self._source.batch(self._settings.steps + batch_index, self._device)
            code = self._networks.predictor(batch.lr)
            for _ in range(_SEARCH_ITERS):
                code = self._corrector(self._networks.sftmd(batch.lr, code), code)
            errors.append(float((curve.sigma(code) - batch.sigma).abs().mean()))
        return np.array(errors)

    def unrolled(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """The mean loss of a few corrections in a row, and the code that they end at."""
        code = self._start(batch, step)
        losses = []
        for _ in range(self._settings.unroll):
            with torch.no_grad():
                sr = self._networks.sftmd(batch.lr, code)
            loss, code = self._correction(batch, sr, code)
            losses.append(loss)
        return torch.stack(losses).mean(), code

    def _start(self, batch: Batch, step: int) -> Tensor:
        """P's code, and anywhere for the share that explores, so that C knows the whole range."""
        random = self._source.random(step).spawn(1)[0]
        basis, settings = self._networks.basis, self._networks.architecture
        anywhere = basis.code_of_sigma(random.uniform(*settings.sigma_range, len(batch.lr)))
        code = torch.from_numpy(anywhere).to(self._device)
        with torch.no_grad():
            predicted = self._networks.predictor(batch.lr).float()
        chosen = torch.from_numpy(random.random((len(code), 1)) >= self._settings.explore).to(
            self._device
        )
        return torch.where(chosen, predicted, code)

    def _correction(self, batch: Batch, sr: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one step from (sr, code) and the next code, cut off from the gradient."""
        if isinstance(self._corrector, StatisticsCorrector):
            curve = self._corrector.curve
            with torch.autocast(self._device.type, enabled=False):
                before = curve.sigma(code)
            sigma = before + self._corrector.step(sr, code)
            with torch.autocast(self._device.type, enabled=False):
                return _sigma_loss(sigma, batch.sigma), curve.code(sigma.detach())
        after = self._corrector(sr, code).float()
        loss = F.smooth_l1_loss(self._normalize(after), self._normalize(batch.code))
        return loss, after.detach()


class JointStage:
    """F on the loop's codes and C on this F's images; P stays as it is.

    A quarter of the batch keeps its true code, so that F still serves a blur that is given.
    No gradient passes between the two: F would learn to help C by making worse images.
    """

    def __init__(
        self,
        networks: IkcNetworks,
        source: BatchSource,
        device: torch.device,
        settings: StageRecipe,
    ) -> None:
        self.module: nn.Module = nn.ModuleDict(
            {"sftmd": networks.sftmd, "corrector": networks.corrector}
        )
        self._corrections = CorrectorStage(networks, source, device, settings)
        self._sftmd = networks.sftmd
        self._source = source
        self._device = device

    def loss(self, step: int) -> Tensor:
        batch = self._source.batch(step, self._device)
        corrections, code = self._corrections.unrolled(batch, step)
        given = max(len(code) // 4, 1)
        code = torch.cat((batch.code[:given], code[given:]))
        image = self._sftmd.unclamped(batch.lr, code).float()
        return F.l1_loss(image, batch.hr) + corrections

    def finish(self) -> dict[str, float]:
        """The line search of the corrector."""
        return self._corrections.finish()


def build_stage(
    name: str, crops: CropSource, networks: IkcNetworks, recipe: Recipe, device: torch.device
) -> Stage:
    """The stage called `name`, ready to compute losses on `device`."""
    settings: StageRecipe = recipe.stages[name]
    source = BatchSource(crops, networks, recipe, name)
    if name == "sftmd":
        return SftmdStage(networks, source, device)
    if name == "predictor":
        return PredictorStage(networks, source, device)
    kind = CorrectorStage if name == "corrector" else JointStage
    return kind(networks, source, device, settings)


def _sigma_loss(sigma: Tensor, truth: Tensor) -> Tensor:
    return F.smooth_l1_loss(sigma.float(), truth, beta=0.1)


def _code_normalization(networks: IkcNetworks) -> CodeNormalization:
    """Codes in units of each component's spread, in which all components count alike."""
    normalization = CodeNormalization(networks.architecture.code_size)
    normalization.fit_to(networks.basis)
    return normalization
