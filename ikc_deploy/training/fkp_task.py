"""Training of FKP's kernel prior: the negative log-likelihood of random kernels.

Each scale is a stage. Kernels and noise of a step depend on the seed and the step alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ikc_deploy.errors import RecipeError
from ikc_deploy.kernels import KernelBasis, random_fkp_kernels
from ikc_deploy.networks.flow import KernelFlow, flow_file, save_flow
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.fkp_recipe import FkpRecipe
from ikc_deploy.training.training_task import TrainingStage, TrainingTask

_HELD_OUT_SEED: Final = 2**32
"""Seed of held-out kernels, above every seed and step of a recipe."""


class FkpTask(TrainingTask[FkpRecipe]):
    """The flows of all scales, one after the other; each becomes a file, `fkp-x2.safetensors`.

    Args:
        recipe: Recipe of the run.
        device: Device of the training.
        processes: The only process.

    Raises:
        RecipeError: There are several processes.
    """

    def __init__(
        self, recipe: FkpRecipe, device: torch.device, processes: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        if processes.size > 1:
            raise RecipeError(
                "a flow normalises over the whole batch, so its training supports only one "
                "process; start it without torchrun"
            )
        super().__init__(recipe, device, processes)
        self.validate_every = recipe.save_every
        self._flows: dict[str, KernelFlow] = {}

    def build(self, basis: KernelBasis | None, *, resumed: bool) -> None:  # noqa: ARG002
        """Create the flows.

        Args:
            basis: None; flows have no codes.
            resumed: Whether the weights of a saved state follow.
        """
        for name, scale in zip(self.recipe.stage_recipes, self.recipe.scales, strict=True):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.recipe.seed)
                self._flows[name] = KernelFlow(scale).to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the flows by the names of their stages."""
        return dict(self._flows)

    def stage(self, name: str) -> TrainingStage:
        """Return the stage of one flow, which is set to training mode."""
        return _FlowStage(self._flows[name], self.recipe)

    def validate(self, stage: str) -> dict[str, float]:
        """Return the likelihood of held-out kernels."""
        flow = self._flows[stage].eval()
        mean, _ = held_out_likelihood(flow, self.recipe.held_out)
        flow.train()
        return {"held_out": mean}

    def save_result(self, run: Path, record: dict[str, Any]) -> Path:
        """Write a file for each flow; return the folder."""
        for name, flow in self._flows.items():
            own = {key: {name: record[key][name]} for key in ("stages", "last")}
            save_flow(flow, run / flow_file(flow.scale), record | own)
        return run


class _FlowStage(TrainingStage):
    def __init__(self, flow: KernelFlow, recipe: FkpRecipe) -> None:
        self.module = self._flow = flow.train()
        self._recipe, self._settings = recipe, recipe.training

    def draw(self, step: int) -> Tensor:
        random = np.random.default_rng((self._recipe.seed, self._flow.scale, step))
        return draw(self._flow, random, self._settings.batch)

    def loss(self, inputs: Tensor) -> Tensor:
        return self._flow.negative_log_likelihood(inputs).mean()

    def finish(self) -> dict[str, float]:
        """Measure the norms on many kernels."""
        seed = (self._recipe.seed, self._flow.scale, self._settings.steps)
        random = np.random.default_rng(seed)
        self._flow.settle(draw(self._flow, random, self._settings.settling))
        mean, error = held_out_likelihood(self._flow.eval(), self._recipe.held_out)
        return {"settled": mean, "settled_error": error}


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
