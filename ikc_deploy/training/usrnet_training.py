"""Training of a USRNet: L1 on its image under the true kernel, drawn from FKP's distribution.

A run is a folder like those of `trainer` and resumes exactly where it was stopped.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.kernels.conventions import random_fkp_kernels
from ikc_deploy.networks.usrnet import Usrnet, save_usrnet
from ikc_deploy.training.batch_degradation import degrade_circular, quantized
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.image_sets import ImageSet
from ikc_deploy.training.runs import (
    CHECKPOINT_FILE,
    RunLog,
    RunState,
    open_run,
    restore,
    restore_optimizer,
    save_state,
)
from ikc_deploy.training.trainer import Progress, learning_rate
from ikc_deploy.training.usrnet_recipe import KIND, UsrnetRecipe

_GRADIENT_NORM = 1.0


def train_usrnet(
    recipe: UsrnetRecipe,
    run: Path,
    *,
    resume: bool,
    device: torch.device,
    progress: Progress,
    keep_going: Callable[[], bool] = lambda: True,
) -> Path | None:
    """Train a USRNet, or resume its training.

    After any interruption, the state on disk resumes exactly like an uninterrupted run.

    Args:
        recipe: Recipe of the run.
        run: Folder of the run; created for a new one.
        resume: Whether to resume from the state in `run`.
        device: Device of the training.
        progress: Called after every step.
        keep_going: Called before every step; False saves the state and stops.

    Returns:
        The path of the checkpoint, or None if `keep_going` returned False.

    Raises:
        InputError: The images are unusable, there is no state to resume, or `run` holds a state and
            `resume` is False.
        OutputError: The folder of a new run cannot be written or holds other files.
        RecipeError: The state is of another recipe or other images, or a crop is larger than all
            images.
        TrainingError: The training diverged.
    """
    images = ImageSet.of_folders(recipe.data)
    state = open_run(recipe, run, resume, images)
    trainer = _UsrnetTrainer(recipe, CropSource.from_folders(recipe.data, device), images, device)
    log = RunLog(run)
    if state is not None:
        trainer.restore(state)
        log.forget_after(KIND, state.step, [KIND])
    while trainer.done < recipe.training.steps:
        if not keep_going():
            trainer.save(run)
            return None
        trainer.step()
        if trainer.done % recipe.log_every == 0 or trainer.done == recipe.training.steps:
            trainer.report(log)
        progress(KIND, trainer.done, recipe.training.steps, trainer.loss)
        if trainer.done % recipe.save_every == 0:
            trainer.save(run)
    trainer.save(run)
    network = trainer.average
    network.training_record = _record(recipe, log)
    save_usrnet(network, run / CHECKPOINT_FILE)
    return run / CHECKPOINT_FILE


class _UsrnetTrainer:
    def __init__(
        self, recipe: UsrnetRecipe, crops: CropSource, images: ImageSet, device: torch.device
    ) -> None:
        self.done = 0
        self.loss = math.nan
        self._recipe, self._settings, self._device = recipe, recipe.training, device
        self._images = images
        self._crops = crops.at_least(recipe.training.patch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._network = Usrnet(recipe.network)
            self._network.initialize()
        self._network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self._network).requires_grad_(False)
        self._optimizer = torch.optim.Adam(
            self._network.parameters(), lr=recipe.training.learning_rate, betas=(0.9, 0.99)
        )
        self._recent: list[Tensor] = []
        self._clock = time.monotonic()

    def step(self) -> None:
        hr, lr, kernels, noise, scale = self._batch()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self._settings)
        bfloat16 = self._recipe.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            sr = self._network(lr, kernels, scale, noise)
        loss = F.l1_loss(sr, hr)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.done += 1
        # At first, a slow average would keep the random initial weights for too long.
        decay = min(self._settings.ema_decay, self.done / (self.done + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self._network.parameters()), 1 - decay
            )
        self._recent.append(loss.detach())

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Return HR crops, LR images on the 8-bit grid, kernels, noise levels, and the scale.

        They depend on the seed and the step alone.
        """
        blur, count = self._recipe.blur, self._settings.batch
        random = np.random.default_rng((self._recipe.seed, self.done))
        scale = int(random.choice(blur.scales))
        crops = self._crops.crops(random, count, self._settings.patch)
        hr = crops.to(torch.float32, memory_format=torch.channels_last) / 255
        kernels = self._here(random_fkp_kernels(random, count, scale))
        levels = random.uniform(0, blur.noise, count) * (random.random(count) >= blur.clean)
        noise = self._here(levels / 255)
        lr = degrade_circular(hr, kernels, scale)
        generator = torch.Generator(self._device).manual_seed(int(random.integers(2**62)))
        grain = torch.randn(lr.shape, generator=generator, device=self._device)
        return hr, quantized(lr + noise[:, None, None, None] * grain), kernels, noise, scale

    def _here(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self._device, torch.float32)

    def report(self, log: RunLog) -> None:
        self.loss = float(torch.stack(self._recent).double().mean())
        now = time.monotonic()
        figures = {
            "loss": self.loss,
            "learning_rate": learning_rate(self.done - 1, self._settings),
            "seconds_per_step": (now - self._clock) / len(self._recent),
        }
        log.write(KIND, self.done, figures)
        self._clock, self._recent = now, []

    def save(self, run: Path) -> None:
        average, optimizer = self.average.state_dict(), self._optimizer.state_dict()
        networks = {KIND: self._network.state_dict()}
        state = RunState(KIND, self.done, networks, average, optimizer)
        save_state(run, self._recipe, state, self._images)

    def restore(self, state: RunState) -> None:
        restore(self._network, state.networks.get(KIND, {}))
        restore(self.average, state.average)
        restore_optimizer(self._optimizer, state.optimizer)
        self.done = state.step


def _record(recipe: UsrnetRecipe, log: RunLog) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "data": [folder.name for folder in recipe.data],
        "blur": asdict(recipe.blur),
        "training": asdict(recipe.training),
        "last": log.last(KIND),
    }
