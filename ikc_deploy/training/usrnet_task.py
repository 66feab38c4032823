"""Training of a USRNet: L1 on its image under the true kernel, drawn from FKP's distribution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.imaging.torch_ops import degrade_circular, quantized
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.kernels.conventions import random_fkp_kernels
from ikc_deploy.networks.usrnet import Usrnet, save_usrnet
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.runs import CHECKPOINT_FILE
from ikc_deploy.training.training_task import TrainingStage, TrainingTask
from ikc_deploy.training.usrnet_recipe import USRNET_STAGE, UsrnetRecipe


class UsrnetTask(TrainingTask[UsrnetRecipe]):
    """A network for all scales in one stage; the result is a checkpoint."""

    _network: Usrnet
    _crops: CropSource

    def build(self, basis: KernelBasis | None, *, resumed: bool) -> None:  # noqa: ARG002
        """Decode the images and create the network.

        Args:
            basis: None; the network has no codes.
            resumed: Whether the weights of a saved state follow.

        Raises:
            InputError: The images are unusable.
            RecipeError: A crop is larger than all images.
        """
        recipe = self.recipe
        crops = CropSource.from_folders(recipe.data, self.device)
        self._crops = crops.at_least(recipe.training.patch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._network = Usrnet(recipe.network)
            self._network.initialize()
        self._network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def modules(self) -> dict[str, nn.Module]:
        """Return the network."""
        return {USRNET_STAGE: self._network}

    def stage(self, name: str) -> TrainingStage:  # noqa: ARG002 - there is one
        """Return the only stage."""
        return _UsrnetStage(self, self._network, self._crops)

    def save_result(self, run: Path, record: dict[str, Any]) -> Path:
        """Write the checkpoint."""
        self._network.training_record = record
        save_usrnet(self._network, run / CHECKPOINT_FILE)
        return run / CHECKPOINT_FILE


@dataclass(frozen=True)
class _UsrnetBatch:
    hr: Tensor
    lr: Tensor
    kernels: Tensor
    noise: Tensor
    scale: int


class _UsrnetStage(TrainingStage):
    def __init__(self, task: UsrnetTask, network: Usrnet, crops: CropSource) -> None:
        self.module = self._network = network
        self._recipe, self._crops, self._device = task.recipe, crops, task.device
        self._part = task.processes.shard(task.recipe.training.batch)

    def draw(self, step: int) -> _UsrnetBatch:
        """Return HR crops, LR images on the 8-bit grid, kernels, noise levels and the scale."""
        blur, count = self._recipe.blur, self._recipe.training.batch
        random = np.random.default_rng((self._recipe.seed, step))
        scale = int(random.choice(blur.scales))
        crops = self._crops.crops(random, count, self._recipe.training.patch, self._part)
        hr = crops.to(torch.float32, memory_format=torch.channels_last) / 255
        kernels = self._to_device(random_fkp_kernels(random, count, scale))
        levels = random.uniform(0, blur.noise, count) * (random.random(count) >= blur.clean)
        noise = self._to_device(levels / 255)
        lr = degrade_circular(hr, kernels, scale)
        generator = torch.Generator(self._device).manual_seed(int(random.integers(2**62)))
        grain = torch.randn((count, *lr.shape[1:]), generator=generator, device=self._device)
        noisy = lr + noise[:, None, None, None] * grain[self._part]
        return _UsrnetBatch(hr, quantized(noisy), kernels, noise, scale)

    def loss(self, inputs: _UsrnetBatch) -> Tensor:
        sr: Tensor = self._network(inputs.lr, inputs.kernels, inputs.scale, inputs.noise)
        return F.l1_loss(sr.float(), inputs.hr)

    def _to_device(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values[self._part]).to(self._device, torch.float32)
