"""The training loop of all recipes: optimizer steps, moving average, log and saved state.

A run is a folder (`runs`). A task (`training_task`) defines what is trained: the stages of IKC or
DAN, FKP's flows, or a USRNet.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ikc_deploy.training.distributed import ProcessGroup
from ikc_deploy.training.image_sets import ImageSet
from ikc_deploy.training.recorded_steps import Gradients, RecordedGradients
from ikc_deploy.training.run_log import RunLog
from ikc_deploy.training.runs import (
    RunState,
    open_run,
    restore,
    restore_optimizer,
    save_state,
)
from ikc_deploy.training.training_task import TrainingStage, TrainingTask

Progress = Callable[[str, int, int, float], None]
"""Callback after every step: (stage, completed steps, total steps, last logged loss)."""


def train(
    task: TrainingTask[Any],
    run: Path,
    *,
    resume: bool,
    progress: Progress,
    keep_going: Callable[[], bool] = lambda: True,
) -> Path | None:
    """Train all stages of a task, or resume their training.

    A run that is resumed after an interruption gives the same result as an uninterrupted one.
    Stages that the run has not started may be changed or added before it is resumed.

    Args:
        task: The task. Each of its processes calls this function with the same arguments, except
            for the task's device; only the main process writes.
        run: Folder of the run; created if it does not exist.
        resume: Whether to resume from the state in `run`.
        progress: Called after every step.
        keep_going: Called before every step; if it returns False, the state is saved and the
            training stops.

    Returns:
        The path of the result; None if `keep_going` returned False.

    Raises:
        InputError: The images are unusable, there is no state to resume, or `run` holds a state and
            `resume` is False.
        OutputError: The folder of a new run cannot be written or holds other files.
        RecipeError: The state is of another recipe or other images, or a crop is larger than all
            images.
        TrainingError: The training diverged.
    """
    recipe, processes = task.recipe, task.processes
    if task.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        # The bicubic skip needs float32; TF32 is too coarse for an 8-bit image.
        torch.backends.cudnn.allow_tf32 = False
    images = ImageSet.of_folders(recipe.data) if recipe.uses_images else None
    state = open_run(recipe, run, resume, images)
    task.build(state.basis if state else None, resumed=state is not None)
    if state is not None:
        for name, module in task.modules().items():
            restore(module, state.networks.get(name, {}))
    # All processes must have read the state before the main process writes.
    processes.barrier()
    names = list(recipe.stage_recipes)
    log = RunLog(run) if processes.is_main else None
    if state is not None and log:
        log.forget_after(state.stage, state.step, names)

    for name in names[names.index(state.stage) if state is not None else 0 :]:
        trainer = _StageTrainer(name, task, log, run, images)
        if state is not None and state.stage == name:
            trainer.restore(state)
        if not trainer.run(progress, keep_going):
            return None
    result = task.save_result(run, _training_record(task, log)) if log else run
    processes.barrier()
    return processes.broadcast(result)


class _StageTrainer:
    """The training of one stage: optimizer, moving average, log, saved state."""

    def __init__(
        self,
        name: str,
        task: TrainingTask[Any],
        log: RunLog | None,
        folder: Path,
        images: ImageSet | None,
    ) -> None:
        self.settings = task.recipe.stage_recipes[name]
        self.done = 0
        self.loss = math.nan
        """Mean loss since the previous line of the log, as last logged."""
        self._name, self._task, self._log = name, task, log
        self._folder, self._images = folder, images
        self._optimization = self.settings.optimization
        for module in task.modules().values():
            module.eval().requires_grad_(False)
        self._stage = task.stage(name)
        self._module = self._stage.module.requires_grad_(True)
        self._parameters: list[Tensor] = list(self._module.parameters())
        self._average: nn.Module | None = None
        self._averages: list[Tensor] = []
        if self._optimization.ema_decay is not None:
            self._average = copy.deepcopy(self._module).requires_grad_(False)
            self._averages = list(self._average.parameters())
        self._optimizer = torch.optim.Adam(
            self._parameters,
            lr=self.settings.learning_rate,
            betas=self._optimization.betas,
            weight_decay=self._optimization.weight_decay,
            fused=True,
        )
        self._step_loss = _distributed_loss(self._stage, task.processes)
        self._gradients: Gradients = self._compute_gradients
        if task.device.type == "cuda" and self._stage.recordable and task.processes.size == 1:
            self._gradients = RecordedGradients(self._compute_gradients)
        self._clock = time.monotonic()
        self._recent: list[Tensor] = []

    def run(self, progress: Progress, keep_going: Callable[[], bool]) -> bool:
        """Train to the end of the stage; return False if `keep_going` stopped it."""
        if self.finished:
            return True
        while not self.finished:
            if not self._task.processes.broadcast(keep_going()):
                self.save()
                return False
            self.step()
            self.report()
            progress(self._name, self.done, self.settings.steps, self.loss)
            if self.done % self._task.recipe.save_every == 0 and not self.finished:
                self.save()
        self.finish()
        self.save()
        return True

    @property
    def finished(self) -> bool:
        return self.done >= self.settings.steps

    def step(self) -> None:
        """Make one optimizer step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.rate(self.done)
        loss = self._gradients(self._stage.draw(self.done))
        if self._optimization.gradient_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._optimization.gradient_norm)
        self._optimizer.step()
        self.done += 1
        if self._optimization.ema_decay is not None:
            # Faster at the beginning, so that the random initial weights are forgotten soon.
            decay = min(self._optimization.ema_decay, self.done / (self.done + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)
        if self._log:
            # Reading a loss would wait for the GPU, so losses are read only when they are logged.
            self._recent.append(loss)

    def _compute_gradients(self, inputs: Any) -> Tensor:
        # set_to_none: a recorded step must write its gradients instead of adding to them.
        self._module.zero_grad(set_to_none=True)
        bfloat16 = self._optimization.precision == "bfloat16"
        with torch.autocast(self._task.device.type, torch.bfloat16, enabled=bfloat16):
            loss: Tensor = self._step_loss(inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def report(self) -> None:
        """Log loss and validation, each at its interval."""
        if not self._log:
            return
        if self.done % self._task.recipe.log_every == 0 or self.finished:
            self.loss = float(torch.stack(self._recent).double().mean())
            now = time.monotonic()
            figures = {
                "loss": self.loss,
                "learning_rate": self.settings.rate(self.done - 1),
                "seconds_per_step": (now - self._clock) / len(self._recent),
            }
            self._log.write(self._name, self.done, figures)
            self._clock, self._recent = now, []
        every = self._task.validate_every
        if every is not None and (self.finished or self.done % every == 0):
            self._log.write(self._name, self.done, self._validated())
            self._clock = time.monotonic()

    def _validated(self) -> dict[str, float]:
        current = copy.deepcopy(self._module.state_dict())
        self._use_average()
        try:
            return self._task.validate(self._name)
        finally:
            self._module.load_state_dict(current)

    def _use_average(self) -> None:
        if self._average is not None:
            self._module.load_state_dict(self._average.state_dict())

    def finish(self) -> None:
        """Replace the weights by their moving average, and finish the stage."""
        self._use_average()
        figures = self._stage.finish()
        if figures and self._log:
            self._log.write(self._name, self.done, figures)

    def save(self) -> None:
        """Write the state to resume from."""
        if not self._log:
            return
        networks = {name: m.state_dict() for name, m in self._task.modules().items()}
        average = {} if self._average is None else self._average.state_dict()
        optimizer = self._optimizer.state_dict()
        state = RunState(self._name, self.done, networks, average, optimizer, self._task.basis)
        save_state(self._folder, self._task.recipe, state, self._images)

    def restore(self, state: RunState) -> None:
        """Resume from a saved state of this stage."""
        if self._average is not None:
            restore(self._average, state.average)
        restore_optimizer(self._optimizer, state.optimizer)
        self.done = state.step


class _LossModule(nn.Module):
    """A stage's loss as the forward pass of a module, for DistributedDataParallel."""

    def __init__(self, stage: TrainingStage) -> None:
        super().__init__()
        self.trained = stage.module
        self._loss = stage.loss

    def forward(self, inputs: Any) -> Tensor:
        return self._loss(inputs)


def _distributed_loss(stage: TrainingStage, processes: ProcessGroup) -> Callable[[Any], Any]:
    if processes.size == 1:
        return stage.loss
    return DistributedDataParallel(_LossModule(stage), broadcast_buffers=False)


def _training_record(task: TrainingTask[Any], log: RunLog) -> dict[str, Any]:
    recipe = task.recipe
    return {
        "recipe": recipe.name,
        "data": [folder.name for folder in recipe.data],
        **recipe.fingerprint,
        "last": {name: log.last(name) for name in recipe.stage_recipes},
    }
