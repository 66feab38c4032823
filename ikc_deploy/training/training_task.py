"""Interfaces between the training loop and what it trains: a `TrainingTask` with stages.

The loop (`trainer`) runs optimizer steps, averages weights, logs and saves. A task provides the
networks, the inputs and the loss of each stage, and writes the result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ikc_deploy.kernels import KernelBasis
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.recipes import TrainingRecipe

RecipeOfTask = TypeVar("RecipeOfTask", bound=TrainingRecipe)


class TrainingStage(ABC):
    """A stage: the module that it trains, its inputs and its loss."""

    module: nn.Module
    """Module that is trained in place."""
    recordable: bool = False
    """Whether all steps run the same operations, so that one can be recorded as a CUDA graph. The
    inputs must then be `StageInputs`."""

    @abstractmethod
    def draw(self, step: int) -> Any:
        """Return the inputs of a step, which depend only on (seed, stage, step)."""

    @abstractmethod
    def loss(self, inputs: Any) -> Tensor:
        """Return the mean loss of this process's samples, with gradients only for `module`."""

    def finish(self) -> dict[str, float]:
        """Finish the stage after its last step, with averaged weights; return figures to log."""
        return {}


class TrainingTask(ABC, Generic[RecipeOfTask]):
    """The networks and stages of one recipe.

    Args:
        recipe: Recipe of the run.
        device: Device of the training.
        processes: Processes of the run; each has its own task with the same recipe.

    Raises:
        RecipeError: A batch cannot be split evenly among the processes.
    """

    basis: KernelBasis | None = None
    """Kernel basis of the networks, which is saved with the state; None if they use no codes."""
    validate_every: int | None = None
    """Number of steps between validations; None for none."""

    def __init__(
        self, recipe: RecipeOfTask, device: torch.device, processes: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        for stage in recipe.stage_recipes.values():
            processes.shard(stage.batch)
        self.recipe, self.device, self.processes = recipe, device, processes

    @abstractmethod
    def build(self, basis: KernelBasis | None, *, resumed: bool) -> None:
        """Read the images, create the networks in `modules`, and validate all stages.

        Args:
            basis: Basis of a saved state.
            resumed: Whether the caller will load the weights of a saved state.
        """

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Return the networks of all stages by name, on `device`."""

    @abstractmethod
    def stage(self, name: str) -> TrainingStage:
        """Return a stage to train; all networks are in evaluation mode without gradients."""

    def validate(self, stage: str) -> dict[str, float]:  # noqa: ARG002 - for subclasses
        """Validate the averaged weights during or after a stage; return figures to log."""
        return {}

    @abstractmethod
    def save_result(self, run: Path, record: dict[str, Any]) -> Path:
        """Write the trained networks into the folder of the run.

        Args:
            run: Folder of the run.
            record: Record of the training: recipe, settings, and the last figures of each stage.

        Returns:
            The file, or the folder if there are several.
        """
