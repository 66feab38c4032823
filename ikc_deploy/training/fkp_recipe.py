"""Recipes for FKP's kernel prior: TOML files with `kind = "fkp"`, read into frozen settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import RecipeError
from ikc_deploy.kernels import FKP_SCALES
from ikc_deploy.training.recipes import is_number, parse_settings, read_toml, require_counts

KIND: Final = "fkp"


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
        require_counts(self, "steps", "batch", "settling")
        if self.batch < 2:
            raise RecipeError("batch must be at least 2: the flow normalises over it")
        if not is_number(self.learning_rate) or not 0 < self.learning_rate < 1:
            raise RecipeError(f"learning_rate must lie in (0, 1), got {self.learning_rate!r}")
        if not is_number(self.weight_decay) or not 0 <= self.weight_decay < 1:
            raise RecipeError(f"weight_decay must lie in [0, 1), got {self.weight_decay!r}")
        if not isinstance(self.halvings, tuple) or not all(
            isinstance(step, int) and step > 0 for step in self.halvings
        ):
            raise RecipeError(f"halvings must be a list of steps, got {self.halvings!r}")

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
        require_counts(self, "log_every", "save_every", "held_out")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise RecipeError(f"seed must be a whole number of at least 0, got {self.seed!r}")
        scales = self.scales
        known = isinstance(scales, tuple) and scales and set(scales) <= set(FKP_SCALES)
        if not known or len(set(scales)) < len(scales):
            raise RecipeError(f"scales must be among {list(FKP_SCALES)}, each once, got {scales!r}")

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
    unknown = sorted(set(values) - known)
    try:
        if unknown:
            raise RecipeError(f"it has unknown settings {', '.join(unknown)}")
        if "training" not in values:
            raise RecipeError("missing: training")
        scales = values.get("scales", list(FKP_SCALES))
        return FkpRecipe(
            name=values.get("name", file.stem),
            scales=tuple(scales) if isinstance(scales, list) else scales,
            training=parse_settings(FlowRecipe, values["training"], "training"),
            seed=values.get("seed", 0),
            log_every=values.get("log_every", 500),
            save_every=values.get("save_every", 2500),
            held_out=values.get("held_out", 10_000),
        )
    except RecipeError as error:
        raise RecipeError(f"in the recipe '{file}': {error}") from error
