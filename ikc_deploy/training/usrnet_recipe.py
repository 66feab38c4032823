"""Recipes for USRNet: TOML files with `kind = "usrnet"`, read into frozen settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import CheckpointError, RecipeError
from ikc_deploy.kernels.conventions import FKP_SCALES, fkp_size
from ikc_deploy.networks.usrnet import UsrnetSettings
from ikc_deploy.text import shown
from ikc_deploy.training.recipes import (
    MAX_SEED,
    Precision,
    StageRecipe,
    image_folders,
    parse_settings,
    parse_value,
    read_toml,
    require_counts,
    require_names,
)

KIND: Final = "usrnet"

_STEP: Final = 8
"""Divisor of crop sides: the prior works at an eighth of the resolution."""


@dataclass(frozen=True)
class BlurRecipe:
    """The degradation of HR crops to LR images: FKP's kernels, then noise, then 8 bits.

    Raises:
        RecipeError: A scale is unknown, or a number is out of range.
    """

    scales: tuple[int, ...] = FKP_SCALES
    """SR factors; every step draws one of them at random."""
    noise: float = 15.0
    """Largest sigma of additive Gaussian noise, in 8-bit levels; uniform from 0 for each image."""
    clean: float = 0.5
    """Share of the images without noise, in [0, 1]."""

    def __post_init__(self) -> None:
        """Require scales of FKP, noise in [0, 255] levels and a share in [0, 1]."""
        if not self.scales or not set(self.scales) <= set(FKP_SCALES):
            raise RecipeError(
                f"scales must be among {list(FKP_SCALES)}, got {shown(list(self.scales))}"
            )
        if not 0 <= self.noise <= 255:
            raise RecipeError(f"noise must lie in [0, 255] levels, got {self.noise!r}")
        if not 0 <= self.clean <= 1:
            raise RecipeError(f"clean must lie in [0, 1], got {self.clean!r}")


@dataclass(frozen=True)
class UsrnetRecipe:
    """One training run of a USRNet; a single stage.

    Raises:
        RecipeError: A number is out of range, or the patch does not fit a scale.
    """

    name: str
    """Name of the recipe, by default that of its file."""
    network: UsrnetSettings
    """Size of the network."""
    data: tuple[Path, ...]
    """Folders of HR images, as absolute paths."""
    training: StageRecipe
    """Settings of the training; `patch` is in HR pixels, as scales differ. `unroll` and
    `random_start_share` have no effect."""
    blur: BlurRecipe
    """Degradation of the crops."""
    seed: int
    """Seed of weights and batches."""
    precision: Precision
    """Type of convolutions in training."""
    log_every: int
    """Number of steps between lines of the log."""
    save_every: int
    """Number of steps between saved states."""

    def __post_init__(self) -> None:
        """Require numbers in range and a patch that every scale divides."""
        require_counts(self, "log_every", "save_every")
        require_counts(self, "seed", least=0, most=MAX_SEED)
        patch = self.training.patch
        for scale in self.blur.scales:
            if patch % scale or patch % _STEP or patch < fkp_size(scale):
                raise RecipeError(
                    f"[training] patch must be a multiple of {_STEP} and of every scale and at "
                    f"least {fkp_size(scale)} HR pixels, got {patch}"
                )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Settings that determine the result of the run."""
        return {
            "network": self.network.to_dict(),
            "seed": self.seed,
            "precision": self.precision,
            "blur": asdict(self.blur),
            "stages": {KIND: asdict(self.training)},
        }


def load_usrnet_recipe(path: str | PathLike[str], data: tuple[Path, ...] = ()) -> UsrnetRecipe:
    """Read a recipe for a USRNet.

    Args:
        path: TOML file.
        data: Folders of HR images instead of the recipe's; empty for the recipe's own.

    Raises:
        RecipeError: A setting is missing, unknown or invalid; the message names it and the file.
    """
    file = Path(path)
    values = read_toml(file)
    try:
        return _parse(values, file, data)
    except (RecipeError, CheckpointError) as error:
        raise RecipeError(f"in the recipe '{file}': {error}") from error


def _parse(values: dict[str, Any], file: Path, data: tuple[Path, ...]) -> UsrnetRecipe:
    known = {"kind", "name", "data", "seed", "precision", "log_every", "save_every"}
    require_names(values, known | {"network", "training", "blur"}, {"training"})
    return UsrnetRecipe(
        name=parse_value(str, values.get("name", file.stem), "name"),
        network=parse_settings(UsrnetSettings, values.get("network", {}), "network"),
        data=image_folders(values.get("data", []), file, data),
        training=parse_settings(StageRecipe, values["training"], "training"),
        blur=parse_settings(BlurRecipe, values.get("blur", {}), "blur"),
        seed=parse_value(int, values.get("seed", 0), "seed"),
        precision=parse_value(Precision, values.get("precision", "float32"), "precision"),
        log_every=parse_value(int, values.get("log_every", 50), "log_every"),
        save_every=parse_value(int, values.get("save_every", 500), "save_every"),
    )
