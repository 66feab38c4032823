"""Recipes for FKP's kernel prior: TOML files with `kind = "fkp"`, read into frozen settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import RecipeError
from ikc_deploy.kernels import FKP_SCALES
from ikc_deploy.toml_settings import shown
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
"""At a time: they and their logits take a few gigabytes."""


@dataclass(frozen=True)
class FlowRecipe:
    """How one flow is trained."""

    steps: int
    """Optimizer steps."""
    batch: int
    """Kernels in a step, made on the fly."""
    learning_rate: float
    weight_decay: float
    halvings: tuple[int, ...] = ()
    """Steps after which the learning rate is halved, rising."""
    settling: int = 20_000
    """Kernels on which the batch norms' statistics are measured at the end."""

    def __post_init__(self) -> None:
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
        """The learning rate of the step after `step` steps."""
        return self.learning_rate * 0.5 ** sum(step >= halving for halving in self.halvings)


@dataclass(frozen=True)
class FkpRecipe:
    """One run: a flow for each scale, one after the other."""

    name: str
    scales: tuple[int, ...]
    training: FlowRecipe
    seed: int
    log_every: int
    save_every: int
    """Steps between states to resume from, each with the likelihood of held-out kernels."""
    held_out: int
    """How many of those."""

    def __post_init__(self) -> None:
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
        """The settings that decide what is computed."""
        settings = asdict(self.training)
        return {"seed": self.seed, "stages": {f"x{scale}": settings for scale in self.scales}}


def load_fkp_recipe(path: str | PathLike[str]) -> FkpRecipe:
    """Read a recipe.

    Raises `RecipeError` naming the file and the setting that is missing, unknown or impossible.
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
