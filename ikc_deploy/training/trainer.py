"""The training loop: stages in order, average of the weights, log, and a state to resume from.

A run is a folder (runs.py); at the end it holds `checkpoint.safetensors`, input of `ikc-export`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ikc_deploy.networks.checkpoints import save_checkpoint, untrained_networks
from ikc_deploy.networks.dan1 import Dan1Restorer
from ikc_deploy.networks.dan2 import Dan2Restorer
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.networks.sr_network import SrNetwork
from ikc_deploy.training.batches import BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.image_set_names import find_image_set, is_name
from ikc_deploy.training.image_sets import ImageSet
from ikc_deploy.training.init_from import started_networks
from ikc_deploy.training.recipes import Recipe, StageRecipe
from ikc_deploy.training.recorded_steps import Gradients, RecordedGradients
from ikc_deploy.training.runs import (
    CHECKPOINT_FILE,
    RunLog,
    RunState,
    open_run,
    restore,
    restore_optimizer,
    save_state,
)
from ikc_deploy.training.stage_context import StageContext, StageInputs
from ikc_deploy.training.stages import STAGES, TrainingStage
from ikc_deploy.training.validation import ValidationCase, load_cases, recommended_iters, validate

_FINAL_RATE: Final = 0.01
_GRADIENT_NORM: Final = 1.0

Progress = Callable[[str, int, int, float], None]
"""Callback after every step with (stage, completed steps, total steps, last logged loss)."""


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool,
    device: torch.device,
    progress: Progress,
    keep_going: Callable[[], bool] = lambda: True,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Path | None:
    """Train all stages of a recipe, or resume their training.

    After any interruption, the state on disk resumes exactly like an uninterrupted run. Stages that
    a run has not begun may still be changed or added.

    Args:
        recipe: Recipe of the run.
        run: Folder of the run; created for a new one.
        resume: Whether to resume from the state in `run`.
        device: Device of the training.
        progress: Called after every step.
        keep_going: Called before every step; False saves the state and stops.
        processes: Processes of the run. Each of them calls this with the same arguments, except for
            the device; only the main process writes.

    Returns:
        The path of the checkpoint, or None if `keep_going` returned False.

    Raises:
        InputError: The images are unusable, there is no state to resume, or `run` holds a state and
            `resume` is False.
        OutputError: The folder of a new run cannot be written or holds other files.
        RecipeError: The state is of another recipe or other images, a crop is larger than all
            images, or a batch cannot be split.
        TrainingError: The training diverged.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        # The bicubic skip is float32; TF32 cannot hold an 8-bit image.
        torch.backends.cudnn.allow_tf32 = False
    images = ImageSet.of_folders(recipe.data)
    state = open_run(recipe, run, resume, images)
    crops = CropSource.from_folders(recipe.data, device, recipe.crops)
    for stage in recipe.stages.values():
        # Check now, not after hours of earlier stages.
        crops.at_least(stage.patch * recipe.architecture.scale)
        processes.shard(stage.batch)
    networks = _networks(recipe, state, device)
    # Every process has read the state before the main process writes.
    processes.barrier()
    log = RunLog(run) if processes.is_main else None
    if state is not None and log:
        log.forget_after(state.stage, state.step, list(recipe.stages))
    cases = _validation_cases(recipe) if log else []
    names = list(recipe.stages)
    for name in names[names.index(state.stage) if state else 0 :]:
        trainer = _StageTrainer(name, recipe, networks, crops, images, device, processes)
        if state is not None and state.stage == name:
            trainer.restore(state)
            if trainer.finished:
                continue
        while not trainer.finished:
            if not processes.broadcast(keep_going()):
                trainer.save(run)
                return None
            trainer.step()
            progress(name, trainer.done, trainer.settings.steps, trainer.loss)
            if log:
                trainer.report(log, cases)
            if trainer.done % recipe.save_every == 0 and not trainer.finished:
                trainer.save(run)
        trainer.finish(log)
        trainer.save(run)
    path = run / CHECKPOINT_FILE
    if log:
        networks.training = _training_record(recipe, log)
        save_checkpoint(networks, path)
    processes.barrier()
    return path


class _StageTrainer:
    """The training of one stage: optimizer, schedule, moving average."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        networks: LoopNetworks,
        crops: CropSource,
        images: ImageSet,
        device: torch.device,
        processes: ProcessGroup,
    ) -> None:
        self.name = name
        self.settings: StageRecipe = recipe.stages[name]
        self.done = 0
        self.loss = math.nan
        """Mean loss of the last line of the log."""
        self._recipe, self._images = recipe, images
        self._networks = networks
        self._device = device
        self._processes = processes
        for module in networks.modules().values():
            module.eval().requires_grad_(False)
        source = BatchSource(crops, networks, recipe, name, device, processes)
        self._stage: TrainingStage = STAGES[name](
            StageContext(networks, source, self.settings, device, processes)
        )
        self._module = self._stage.module.requires_grad_(True)
        self._step_loss = _shared_loss(self._stage, processes)
        self._gradients: Gradients = self._computed_gradients
        if device.type == "cuda" and self._stage.recordable and processes.size == 1:
            self._gradients = RecordedGradients(self._computed_gradients)
        self._average = copy.deepcopy(self._module).requires_grad_(False)
        self._parameters: list[Tensor] = list(self._module.parameters())
        self._averages: list[Tensor] = list(self._average.parameters())
        self._optimizer = torch.optim.Adam(
            self._parameters, lr=self.settings.learning_rate, betas=(0.9, 0.99), fused=True
        )
        self._clock = time.monotonic()
        self._recent: list[Tensor] = []

    @property
    def finished(self) -> bool:
        return self.done >= self.settings.steps

    def step(self) -> None:
        """Make one optimizer step."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.settings)
        loss = self._gradients(self._stage.draw(self.done))
        nn.utils.clip_grad_norm_(self._parameters, _GRADIENT_NORM)
        self._optimizer.step()
        self.done += 1
        # At first, a slow average would keep the random initial weights for too long.
        decay = min(self.settings.ema_decay, self.done / (self.done + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)
        if self._processes.is_main:
            # Reading a loss waits for the GPU, so it is read only when it is logged.
            self._recent.append(loss)

    def report(self, log: RunLog, cases: list[ValidationCase]) -> None:
        """Log the loss at the recipe's interval, and a validation at its own."""
        if self.done % self._recipe.log_every == 0 or self.finished:
            self.loss = float(torch.stack(self._recent).double().mean())
            now = time.monotonic()
            figures = {
                "loss": self.loss,
                "learning_rate": learning_rate(self.done - 1, self.settings),
                "seconds_per_step": (now - self._clock) / len(self._recent),
            }
            log.write(self.name, self.done, figures)
            self._clock, self._recent = now, []
        validation = self._recipe.validation
        if cases and validation and (self.finished or self.done % validation.every == 0):
            measured = self._with_average(
                lambda: validate(self._networks, cases, self.name, validation.iters, self._device)
            )
            log.write(self.name, self.done, measured)
            self._clock = time.monotonic()

    def use_average(self) -> None:
        """Replace the weights of the module by their average, the result of the stage."""
        self._module.load_state_dict(self._average.state_dict())

    def finish(self, log: RunLog | None) -> None:
        """Replace the weights by the result of the stage."""
        self.use_average()
        figures = self._stage.finish()
        if figures and log:
            log.write(self.name, self.done, figures)

    def save(self, run: Path) -> None:
        """Write the state to resume from."""
        if not self._processes.is_main:
            return
        networks = {name: m.state_dict() for name, m in self._networks.modules().items()}
        average, optimizer = self._average.state_dict(), self._optimizer.state_dict()
        basis = self._networks.basis
        state = RunState(self.name, self.done, networks, average, optimizer, basis)
        save_state(run, self._recipe, state, self._images)

    def restore(self, state: RunState) -> None:
        """Resume from a saved state of this stage."""
        restore(self._average, state.average)
        restore_optimizer(self._optimizer, state.optimizer)
        self.done = state.step

    def _computed_gradients(self, inputs: StageInputs) -> Tensor:
        # A recorded step then writes its gradients instead of adding them.
        self._module.zero_grad(set_to_none=True)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"
        ):
            loss: Tensor = self._step_loss(inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _with_average(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        current = copy.deepcopy(self._module.state_dict())
        self.use_average()
        try:
            return measure()
        finally:
            self._module.load_state_dict(current)


def learning_rate(step: int, settings: StageRecipe) -> float:
    """Return the learning rate of the step after `step` steps.

    Linear warm-up, constant, then a half cosine down to a hundredth of the peak.
    """
    warm = min(1.0, (step + 1) / max(settings.warmup, 1))
    stable = settings.stable_steps
    turn = 0.5 * (1 + math.cos(math.pi * max(0, step - stable) / (settings.steps - stable)))
    return settings.learning_rate * warm * (_FINAL_RATE + (1 - _FINAL_RATE) * turn)


class _LossModule(nn.Module):
    """A stage's loss as a forward pass, whose gradients DistributedDataParallel averages."""

    def __init__(self, stage: TrainingStage) -> None:
        super().__init__()
        self.trained = stage.module
        self._loss = stage.loss

    def forward(self, inputs: StageInputs) -> Tensor:
        return self._loss(inputs)


def _shared_loss(stage: TrainingStage, processes: ProcessGroup) -> Callable[[StageInputs], Any]:
    if processes.size == 1:
        return stage.loss
    return DistributedDataParallel(_LossModule(stage), broadcast_buffers=False)


def _networks(recipe: Recipe, state: RunState | None, device: torch.device) -> LoopNetworks:
    if recipe.init_from is None or state is not None:
        basis = None if state is None else state.basis
        networks = untrained_networks(recipe.architecture, recipe.seed, basis)
    else:
        networks = started_networks(
            recipe.architecture, recipe.seed, recipe.init_from, recipe.folder
        )
    for name, module in networks.modules().items():
        module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.compile and isinstance(module, SrNetwork | Dan1Restorer | Dan2Restorer):
            # All blocks share one compiled function, so this takes seconds instead of minutes.
            for block in module.residual_blocks:
                block.compile()
        if state is not None:
            restore(module, state.networks.get(name, {}))
    return networks


def _validation_cases(recipe: Recipe) -> list[ValidationCase]:
    validation = recipe.validation
    if validation is None:
        return []
    name = validation.folder
    folder = find_image_set(name) if is_name(name) else recipe.folder / name
    if folder is None or not folder.is_dir():
        return []
    return load_cases(folder, validation.sigmas, recipe.architecture.scale)


def _training_record(recipe: Recipe, log: RunLog) -> dict[str, Any]:
    last = {name: log.last(name) for name in recipe.stages}
    record = _settings_record(recipe) | {"last": last}
    final = last[list(recipe.stages)[-1]]
    if "step0" in final and recipe.validation is not None:
        curve = [final[f"step{step}"] for step in range(recipe.validation.iters + 1)]
        record["recommended_iters"] = recommended_iters(curve)
    return record


def _settings_record(recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "start": recipe.init_from,
        "degradation": asdict(recipe.degradation),
        "data": [folder.name for folder in recipe.data],
        "stages": {name: asdict(stage) for name, stage in recipe.stages.items()},
    }
