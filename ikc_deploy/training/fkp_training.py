"""Training of FKP's kernel prior: the negative log-likelihood of random kernels.

A run is a folder like those of `trainer` and resumes exactly where it was stopped: kernels and
noise of a step depend on the seed and the step alone. After each scale the folder holds its flow,
for example `fkp-x2.safetensors`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ikc_deploy.kernels import random_fkp_kernels
from ikc_deploy.networks.flow import KernelFlow, flow_file, save_flow
from ikc_deploy.training.fkp_recipe import FkpRecipe
from ikc_deploy.training.runs import (
    RunLog,
    RunState,
    open_run,
    restore,
    restore_optimizer,
    save_state,
)
from ikc_deploy.training.trainer import Progress

_HELD_OUT_SEED: Final = 2**32
"""Seed of held-out kernels, above every seed and step of a recipe."""


def train_fkp(
    recipe: FkpRecipe,
    run: Path,
    *,
    resume: bool,
    device: torch.device,
    progress: Progress,
    keep_going: Callable[[], bool] = lambda: True,
) -> Path | None:
    """Train the flows of all scales, or resume their training.

    After any interruption, the state on disk resumes exactly like an uninterrupted run.

    Args:
        recipe: Recipe of the run.
        run: Folder of the run; created for a new one.
        resume: Whether to resume from the state in `run`.
        device: Device of the training.
        progress: Called after every step.
        keep_going: Called before every step; False saves the state and stops.

    Returns:
        The folder, or None if `keep_going` returned False.

    Raises:
        InputError: There is no state to resume, or `run` holds a state and `resume` is False.
        OutputError: The folder of a new run cannot be written or holds other files.
        RecipeError: The state is of another recipe.
        TrainingError: The training diverged.
    """
    state = open_run(recipe, run, resume)
    log, stages = RunLog(run), [f"x{scale}" for scale in recipe.scales]
    if state is not None:
        log.forget_after(state.stage, state.step, stages)
    begun = stages.index(state.stage) if state is not None else 0
    for stage, scale in list(zip(stages, recipe.scales, strict=True))[begun:]:
        trainer = _FkpTrainer(recipe, scale, device)
        if state is not None and state.stage == stage:
            trainer.restore(state)
        while trainer.done < recipe.training.steps:
            if not keep_going():
                trainer.save(run)
                return None
            trainer.step()
            if trainer.done % recipe.log_every == 0:
                trainer.report(log)
            progress(stage, trainer.done, recipe.training.steps, trainer.loss)
            if trainer.done % recipe.save_every == 0 or trainer.done == recipe.training.steps:
                trainer.validate(log)
                trainer.save(run)
        trainer.finish(run, log)
    return run


@torch.no_grad()
def held_out_likelihood(flow: KernelFlow, count: int) -> tuple[float, float]:
    """Return the mean -log p of held-out kernels and its standard error, in nats.

    Args:
        flow: Flow in evaluation mode.
        count: Number of kernels. They and their noise are the same for every flow of a scale, and
            never used in training.
    """
    random = np.random.default_rng((_HELD_OUT_SEED, flow.scale))
    values = flow.negative_log_likelihood(draw(flow, random, count)).double()
    return float(values.mean()), float(values.std()) / math.sqrt(count)


def draw(flow: KernelFlow, random: np.random.Generator, count: int) -> Tensor:
    """Return logits `[count,k*k]` of random kernels with noise, the flow's input in training."""
    kernels = random_fkp_kernels(random, count, flow.scale)
    noise = random.random(kernels.shape)
    # In float64, like the reference: logits are steep near their ends.
    logits = flow.logits(torch.from_numpy(kernels), torch.from_numpy(noise))
    return logits.to(next(flow.parameters()))


class _FkpTrainer:
    def __init__(self, recipe: FkpRecipe, scale: int, device: torch.device) -> None:
        self.done = 0
        self.loss = math.nan
        self._stage = f"x{scale}"
        self._recipe, self._settings = recipe, recipe.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._flow = KernelFlow(scale)
        self._flow.to(device).train()
        self._optimizer = torch.optim.Adam(
            self._flow.parameters(), weight_decay=recipe.training.weight_decay, fused=True
        )
        self._recent: list[Tensor] = []
        self._clock = time.monotonic()

    def step(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.rate(self.done)
        logits = draw(self._flow, self._random(self.done), self._settings.batch)
        loss = self._flow.negative_log_likelihood(logits).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.done += 1
        self._recent.append(loss.detach())

    def validate(self, log: RunLog) -> None:
        """Log the likelihood of held-out kernels under the current flow."""
        self._flow.eval()
        mean, _ = held_out_likelihood(self._flow, self._recipe.held_out)
        self._flow.train()
        log.write(self._stage, self.done, {"held_out": mean})
        self._clock = time.monotonic()

    def report(self, log: RunLog) -> None:
        self.loss = float(torch.stack(self._recent).double().mean())
        now = time.monotonic()
        figures = {
            "loss": self.loss,
            "learning_rate": self._settings.rate(self.done - 1),
            "seconds_per_step": (now - self._clock) / len(self._recent),
        }
        log.write(self._stage, self.done, figures)
        self._clock, self._recent = now, []

    def finish(self, run: Path, log: RunLog) -> None:
        """Measure the norms on many kernels, and write the flow."""
        random = self._random(self._settings.steps)
        self._flow.settle(draw(self._flow, random, self._settings.settling))
        mean, error = held_out_likelihood(self._flow.eval(), self._recipe.held_out)
        log.write(self._stage, self.done, {"settled": mean, "settled_error": error})
        save_flow(self._flow, run / flow_file(self._flow.scale), self._record(log))

    def save(self, run: Path) -> None:
        networks = {self._stage: self._flow.state_dict()}
        state = RunState(self._stage, self.done, networks, {}, self._optimizer.state_dict())
        save_state(run, self._recipe, state)

    def restore(self, state: RunState) -> None:
        restore(self._flow, state.networks.get(self._stage, {}))
        restore_optimizer(self._optimizer, state.optimizer)
        self.done = state.step

    def _random(self, step: int) -> np.random.Generator:
        return np.random.default_rng((self._recipe.seed, self._flow.scale, step))

    def _record(self, log: RunLog) -> dict[str, Any]:
        return {
            "recipe": self._recipe.name,
            "seed": self._recipe.seed,
            "training": asdict(self._settings),
            "last": log.last(self._stage),
        }
