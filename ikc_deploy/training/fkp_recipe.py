"""Recipes for FKP's kernel prior: TOML files with `kind = "fkp"`, read into frozen settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import RecipeError
from ikc_deploy.kernels import FKP_SCALES
from ikc_deploy.text import shown
from ikc_deploy.training.recipes import (
    MAX_BATCH,
    MAX_SEED,
    parse_settings,
    parse_value,
    read_toml,
    require_counts,
    require_names,
)

KIND: Final = "fkp"

MAX_KERNELS: Final = 1_000_000
"""Largest number of kernels at a time; with their logits they take a few gigabytes."""


@dataclass(frozen=True)
class FlowRecipe:
    """The settings of the training of one flow.

    Raises:
        RecipeError: A number is out of range.
    """

    steps: int
    """Number of optimizer steps."""
    batch: int
    """Number of kernels in a step, generated while training; at least 2."""
    learning_rate: float
    """Learning rate of Adam before its halvings, in (0, 1)."""
    weight_decay: float
    """Weight decay of Adam, in [0, 1)."""
    halvings: tuple[int, ...] = ()
    """Steps after which the learning rate is halved."""
    settling: int = 20_000
    """Number of kernels on which the statistics of the batch norms are measured at the end."""

    def __post_init__(self) -> None:
        """Require positive numbers, rates in (0, 1) and batches that can be normalised."""
        require_counts(self, "steps")
        # The flow normalises over the batch.
        require_counts(self, "batch", least=2, most=MAX_BATCH)
        require_counts(self, "settling", least=2, most=MAX_KERNELS)
        if not 0 < self.learning_rate < 1:
            raise RecipeError(f"learning_rate must lie in (0, 1), got {self.learning_rate!r}")
        if not 0 <= self.weight_decay < 1:
            raise RecipeError(f"weight_decay must lie in [0, 1), got {self.weight_decay!r}")
        if not all(step > 0 for step in self.halvings):
            raise RecipeError(
                f"halvings must be a list of positive steps, got {shown(list(self.halvings))}"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of the step after `step` steps."""
        return self.learning_rate * 0.5 ** sum(step >= halving for halving in self.halvings)


@dataclass(frozen=True)
class FkpRecipe:
    """One run: a flow for each scale, one after the other.

    Raises:
        RecipeError: A number is out of range, or a scale is unknown or given twice.
    """

    name: str
    """Name of the recipe, by default that of its file."""
    scales: tuple[int, ...]
    """SR factors, one flow for each."""
    training: FlowRecipe
    """Settings of the training, the same for every flow."""
    seed: int
    """Seed of weights, kernels and noise."""
    log_every: int
    """Number of steps between lines of the log."""
    save_every: int
    """Number of steps between saved states, each with the likelihood of held-out kernels."""
    held_out: int
    """Number of held-out kernels."""

    def __post_init__(self) -> None:
        """Require numbers in range and each scale at most once."""
        require_counts(self, "log_every", "save_every")
        require_counts(self, "held_out", least=2, most=MAX_KERNELS)
        require_counts(self, "seed", least=0, most=MAX_SEED)
        scales = self.scales
        if not scales or not set(scales) <= set(FKP_SCALES) or len(set(scales)) < len(scales):
            raise RecipeError(
                f"scales must be among {list(FKP_SCALES)}, each once, got {shown(list(scales))}"
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Settings that determine the result of the run."""
        settings = asdict(self.training)
        return {"seed": self.seed, "stages": {f"x{scale}": settings for scale in self.scales}}


def load_fkp_recipe(path: str | PathLike[str]) -> FkpRecipe:
    """Read a recipe for flows.

    Args:
        path: TOML file.

    Raises:
        RecipeError: A setting is missing, unknown or invalid; the message names it and the file.
    """
    file = Path(path)
    values = read_toml(file)
    known = {"kind", "name", "scales", "seed", "training"}
    known |= {"log_every", "save_every", "held_out"}
    try:
        require_names(values, known, {"training"})
        return FkpRecipe(
            name=parse_value(str, values.get("name", file.stem), "name"),
            scales=parse_value(tuple[int, ...], values.get("scales", FKP_SCALES), "scales"),
            training=parse_settings(FlowRecipe, values["training"], "training"),
            seed=parse_value(int, values.get("seed", 0), "seed"),
            log_every=parse_value(int, values.get("log_every", 500), "log_every"),
            save_every=parse_value(int, values.get("save_every", 2500), "save_every"),
            held_out=parse_value(int, values.get("held_out", 10_000), "held_out"),
        )
    except RecipeError as error:
        raise RecipeError(f"in the recipe '{file}': {error}") from error
