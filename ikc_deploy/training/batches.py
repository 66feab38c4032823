"""Training batches: HR crops, random blurs, LR images and true codes.

A batch depends only on (seed, stage, step), so a resumed run gets the same batches as an
uninterrupted one. All processes draw the same random numbers, and each computes its own part of the
batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.imaging.torch_ops import degrade, quantized
from ikc_deploy.kernels import LEVEL_UNITS
from ikc_deploy.networks.kernel_parametrization import ellipse_parameters, gaussian_kernels
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.jpeg import jpeg
from ikc_deploy.training.loop_recipe import DegradationRecipe, LoopRecipe


@dataclass(frozen=True)
class Batch:
    """One batch; images are float32 in [0,1], in channels-last memory."""

    hr: Tensor
    """HR images `[N,3,sH,sW]`."""
    lr: Tensor
    """LR images `[N,3,H,W]`, rounded to 8 bits."""
    kernel_parameters: Tensor
    """Blur in HR pixels: sigma `[N,1]`, or spread `[N,3]` (networks/kernel_parametrization.py)."""
    levels: Tensor
    """Noise and compression in units of `LEVEL_UNITS`, `[N,2]`, or `[N,0]` if codes have none."""
    code: Tensor
    """Codes `[N,code_size]` of the true kernels and levels."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors, in the order of the constructor."""
        return self.hr, self.lr, self.kernel_parameters, self.levels, self.code


class BatchSource:
    """Draws the batches of one stage.

    Args:
        crops: HR images, on `device`.
        networks: Networks; their architecture and basis determine scale, blurs and codes.
        recipe: Recipe of the run.
        stage: Name of the stage.
        device: Device of the batches.
        processes: Processes that share each batch.

    Raises:
        RecipeError: A crop is larger than all images, or the batch cannot be split evenly.
    """

    def __init__(
        self,
        crops: CropSource,
        networks: LoopNetworks,
        recipe: LoopRecipe,
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
        """Return the random generator of a step, the same in every process."""
        return np.random.default_rng((*self._seed, step))

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of a step."""
        random = self.random(step)
        crops = self._crops.crops(random, self._count, self._side, self._part)
        hr = crops.to(torch.float32, memory_format=torch.channels_last) / 255
        parameters = self.kernel_parameters(random)
        kernels = gaussian_kernels(parameters, self._size)
        lr, levels = self._degraded(degrade(hr, kernels, self._settings.scale), random)
        levels = levels[:, : self._settings.levels]
        code = kernels.flatten(1) @ self._components
        code = code + F.pad(levels, (code.shape[1] - levels.shape[1], 0))
        lr = quantized(lr).contiguous(memory_format=torch.channels_last)
        return Batch(hr, lr, parameters, levels, code)

    def kernel_parameters(self, random: np.random.Generator) -> Tensor:
        """Return random blurs `[N,1]` or `[N,3]`, uniform in sigma, for this process."""
        low, high = self._settings.sigma_range
        if self._settings.kernels == "isotropic":
            sigma = self._to_device(random.uniform(low, high, self._count))
            return sigma[:, None]
        sigma1, sigma2 = (self._to_device(random.uniform(low, high, self._count)) for _ in range(2))
        return ellipse_parameters(
            sigma1, sigma2, self._to_device(random.uniform(0, np.pi, self._count))
        )

    def random_mask(self, random: np.random.Generator, share: float) -> Tensor:
        """Return bool `[N,1]`, True for a random `share` of the samples, for this process."""
        return (self._to_device(random.random(self._count)) < share)[:, None]

    def codes(self, parameters: Tensor) -> Tensor:
        """Return the codes `[N,code_size]` of blurs `[N,1]` or `[N,3]`, with levels 0."""
        return self.kernels(parameters) @ self._components

    def kernels(self, parameters: Tensor) -> Tensor:
        """Return the kernels `[N,K*K]`, sum 1, of blurs `[N,1]` or `[N,3]`."""
        return gaussian_kernels(parameters, self._size).flatten(1)

    def _degraded(self, lr: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Add the recipe's noise and compression; return images and levels `[N,2]`."""
        settings: DegradationRecipe = self._degradation
        noise_level = jpeg_level = torch.zeros(len(lr), device=self._device)
        if settings.noise:
            generator = torch.Generator(self._device)
            generator.manual_seed(int(random.integers(2**62)))
            levels = self._to_device(random.uniform(0, settings.noise, self._count))
            levels = levels * self.random_mask(random, settings.share)[:, 0]
            noise_level = levels / LEVEL_UNITS[0]
            shape = (self._count, *lr.shape[1:])
            noise = torch.randn(shape, generator=generator, device=self._device)[self._part]
            lr = lr + noise * levels[:, None, None, None] / 255
        if settings.jpeg:
            low, high = settings.jpeg
            quality = self._to_device(random.integers(low, high, self._count, endpoint=True))
            chosen = self.random_mask(random, settings.share)[:, 0]
            jpeg_level = chosen * (100 - quality) / LEVEL_UNITS[1]
            lr = torch.where(chosen[:, None, None, None], jpeg(quantized(lr), quality), lr)
        return lr, torch.stack((noise_level, jpeg_level), dim=1)

    def _to_device(self, values: NDArray[Any]) -> Tensor:
        # Non-blocking: the values are copied to a staging buffer before the call returns.
        tensor = torch.from_numpy(values[self._part].astype(np.float32))
        return tensor.to(self._device, non_blocking=True)
