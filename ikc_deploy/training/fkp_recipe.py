"""Recipes for FKP's kernel prior: TOML files with `kind = "fkp"`, read into frozen settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ikc_deploy.errors import RecipeError
from ikc_deploy.kernels import FKP_SCALES
from ikc_deploy.text import shown
from ikc_deploy.training.recipes import (
    MAX_BATCH,
    Optimization,
    StageRecipe,
    TrainingRecipe,
    require_counts,
)

MAX_KERNELS: Final = 1_000_000
"""Largest number of kernels at a time; with their logits they take a few gigabytes."""


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(StageRecipe):
    """The settings of the training of one flow.

    Raises:
        RecipeError: A number is out of range.
    """

    weight_decay: float
    """Weight decay of Adam, in [0, 1)."""
    halvings: tuple[int, ...] = ()
    """Steps after which the learning rate is halved."""
    settling: int = 20_000
    """Number of kernels on which the statistics of the batch norms are measured at the end."""

    def __post_init__(self) -> None:
        """Require positive numbers, rates in (0, 1) and batches that can be normalised."""
        super().__post_init__()
        # The flow normalises over the batch.
        require_counts(self, "batch", least=2, most=MAX_BATCH)
        require_counts(self, "settling", least=2, most=MAX_KERNELS)
        if not 0 <= self.weight_decay < 1:
            raise RecipeError(f"weight_decay must lie in [0, 1), got {self.weight_decay!r}")
        if not all(step > 0 for step in self.halvings):
            raise RecipeError(
                f"halvings must be a list of positive steps, got {shown(list(self.halvings))}"
            )

    @property
    def optimization(self) -> Optimization:
        """The rest of the optimizer's settings, as published."""
        return Optimization((0.9, 0.999), self.weight_decay, gradient_norm=None)

    def rate(self, step: int) -> float:
        """Return the learning rate of the step after `step` steps."""
        return self.learning_rate * 0.5 ** sum(step >= halving for halving in self.halvings)


@dataclass(frozen=True, kw_only=True)
class FkpRecipe(TrainingRecipe):
    """One run: a flow for each scale, one after the other.

    Raises:
        RecipeError: A number is out of range, or a scale is unknown or given twice.
    """

    uses_images: ClassVar[bool] = False
    """Whether the recipe has `data`: it generates kernels."""

    scales: tuple[int, ...] = FKP_SCALES
    """SR factors, one flow for each."""
    training: FlowRecipe
    """Settings of the training, the same for every flow."""
    log_every: int = 500
    """Number of steps between lines of the log."""
    save_every: int = 2500
    """Number of steps between saved states, each with the likelihood of held-out kernels."""
    held_out: int = 10_000
    """Number of held-out kernels."""

    def __post_init__(self) -> None:
        """Require numbers in range and each scale at most once."""
        super().__post_init__()
        require_counts(self, "held_out", least=2, most=MAX_KERNELS)
        scales = self.scales
        if not scales or not set(scales) <= set(FKP_SCALES) or len(set(scales)) < len(scales):
            raise RecipeError(
                f"scales must be among {list(FKP_SCALES)}, each once, got {shown(list(scales))}"
            )

    @property
    def stage_recipes(self) -> dict[str, StageRecipe]:
        """Stages `x2`, `x3` and so on."""
        return {f"x{scale}": self.training for scale in self.scales}

    @property
    def settings(self) -> dict[str, Any]:
        """No settings: seed and stages determine the result."""
        return {}
