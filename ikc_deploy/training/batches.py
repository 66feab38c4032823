"""What one training step sees: HR crops, the blur of each, the LR images, the true codes.

A batch depends on (seed, stage, step) alone, so a resumed run draws what an unbroken one would.
Several processes draw the same batch and make their own part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.kernels import LEVEL_UNITS
from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.networks.ellipses import ellipse_parameters, gaussian_kernels
from ikc_deploy.training.batch_degradation import degrade, quantized
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.jpeg import jpeg
from ikc_deploy.training.recipes import DegradationRecipe, Recipe


@dataclass(frozen=True)
class Batch:
    """Images in [0,1], in channels-last memory."""

    hr: Tensor
    """`[N,3,sH,sW]`"""
    lr: Tensor
    """`[N,3,H,W]`, on the 8-bit grid"""
    kernel_parameters: Tensor
    """The blur in HR pixels: sigma `[N,1]`, or `[N,3]` for ellipses (networks/ellipses.py)."""
    levels: Tensor
    """Noise and compression in units of `LEVEL_UNITS`, `[N,2]`, or `[N,0]` if codes have none."""
    code: Tensor
    """`[N,code_size]`, the true kernel's and the true levels'."""


class BatchSource:
    """Draws the batches of one stage."""

    def __init__(
        self,
        crops: CropSource,
        networks: IkcNetworks,
        recipe: Recipe,
        stage: str,
        device: torch.device,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._seed = (recipe.seed, list(recipe.stages).index(stage))
        self._count = recipe.stages[stage].batch
        self._part = processes.shard(self._count)
        self._degradation = recipe.degradation
        self._settings = networks.architecture
        self._side = recipe.stages[stage].patch * self._settings.scale
        self._crops = crops.at_least(self._side)
        self._size = networks.basis.kernel_size
        self._components = torch.from_numpy(networks.basis.components).to(device)
        self._device = device

    def random(self, step: int) -> np.random.Generator:
        """The random numbers of a step, the same in every process."""
        return np.random.default_rng((*self._seed, step))

    def batch(self, step: int) -> Batch:
        """This process's part of the batch of a step."""
        random = self.random(step)
        crops = self._crops.crops(random, self._count, self._side, self._part)
        hr = crops.to(torch.float32, memory_format=torch.channels_last) / 255
        parameters = self.kernel_parameters(random)
        kernels = gaussian_kernels(parameters, self._size)
        lr, levels = self._spoiled(degrade(hr, kernels, self._settings.scale), random)
        levels = levels[:, : self._settings.levels]
        code = kernels.flatten(1) @ self._components
        code = code + F.pad(levels, (code.shape[1] - levels.shape[1], 0))
        lr = quantized(lr).contiguous(memory_format=torch.channels_last)
        return Batch(hr, lr, parameters, levels, code)

    def kernel_parameters(self, random: np.random.Generator) -> Tensor:
        """Blurs of the family for this process's part, every sigma equally often."""
        low, high = self._settings.sigma_range
        if self._settings.kernels == "isotropic":
            sigma = self._here(random.uniform(low, high, self._count))
            return sigma[:, None]
        sigma1, sigma2 = (self._here(random.uniform(low, high, self._count)) for _ in range(2))
        return ellipse_parameters(sigma1, sigma2, self._here(random.uniform(0, np.pi, self._count)))

    def chosen(self, random: np.random.Generator, share: float) -> Tensor:
        """True for a random `share` of this process's part: bool `[N,1]`."""
        return (self._here(random.random(self._count)) < share)[:, None]

    def codes(self, parameters: Tensor) -> Tensor:
        """The codes `[N,code_size]` of blurs."""
        return gaussian_kernels(parameters, self._size).flatten(1) @ self._components

    def _spoiled(self, lr: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """`lr` with the noise and the compression of the recipe, and the levels `[N,2]` of both."""
        settings: DegradationRecipe = self._degradation
        noise_level = jpeg_level = torch.zeros(len(lr), device=self._device)
        if settings.noise:
            generator = torch.Generator(self._device)
            generator.manual_seed(int(random.integers(2**62)))
            levels = self._here(random.uniform(0, settings.noise, self._count))
            levels = levels * self.chosen(random, settings.share)[:, 0]
            noise_level = levels / LEVEL_UNITS[0]
            shape = (self._count, *lr.shape[1:])
            noise = torch.randn(shape, generator=generator, device=self._device)[self._part]
            lr = lr + noise * levels[:, None, None, None] / 255
        if settings.jpeg:
            low, high = settings.jpeg
            quality = self._here(random.integers(low, high, self._count, endpoint=True))
            chosen = self.chosen(random, settings.share)[:, 0]
            jpeg_level = chosen * (100 - quality) / LEVEL_UNITS[1]
            lr = torch.where(chosen[:, None, None, None], jpeg(quantized(lr), quality), lr)
        return lr, torch.stack((noise_level, jpeg_level), dim=1)

    def _here(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values[self._part]).to(self._device, torch.float32)
