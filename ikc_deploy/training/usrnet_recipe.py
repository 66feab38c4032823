"""Recipes for USRNet: TOML files with `kind = "usrnet"`, read into frozen settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ikc_deploy.errors import RecipeError
from ikc_deploy.kernels.conventions import FKP_SCALES, fkp_size
from ikc_deploy.networks.usrnet import UsrnetSettings
from ikc_deploy.text import shown
from ikc_deploy.training.loop_recipe import ImageStageRecipe
from ikc_deploy.training.recipes import StageRecipe, TrainingRecipe

USRNET_STAGE: Final = "usrnet"
"""Name of the only stage."""

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


@dataclass(frozen=True, kw_only=True)
class UsrnetRecipe(TrainingRecipe):
    """One training run of a USRNet; a single stage.

    Raises:
        RecipeError: A number is out of range, or the patch does not fit a scale.
    """

    network: UsrnetSettings = field(default_factory=UsrnetSettings)
    """Size of the network."""
    training: ImageStageRecipe
    """Settings of the training; `patch` is in HR pixels, as scales differ."""
    blur: BlurRecipe = BlurRecipe()
    """Degradation of the crops."""

    def __post_init__(self) -> None:
        """Require numbers in range and a patch that every scale divides."""
        super().__post_init__()
        patch = self.training.patch
        for scale in self.blur.scales:
            if patch % scale or patch % _STEP or patch < fkp_size(scale):
                raise RecipeError(
                    f"[training] patch must be a multiple of {_STEP} and of every scale and at "
                    f"least {fkp_size(scale)} HR pixels, got {patch}"
                )

    @property
    def stage_recipes(self) -> dict[str, StageRecipe]:
        """The only stage, `usrnet`."""
        return {USRNET_STAGE: self.training}

    @property
    def settings(self) -> dict[str, Any]:
        """Settings other than seed and stages that determine the result, as JSON values."""
        return {"network": self.network.to_dict(), "blur": asdict(self.blur)}
