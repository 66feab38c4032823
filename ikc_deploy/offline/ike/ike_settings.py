"""The settings of a fit: the paper's values, and a switch for each row of its ablation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Final

from ikc_deploy.errors import InputError
from ikc_deploy.offline.fit_settings import ITERATIONS, FitSettings
from ikc_deploy.offline.ike_switches import IkeSwitches

SCALES: Final = (2, 4)
"""Each stage of the network halves the sides."""

MIN_CROP: Final = 16
"""Smallest crop for each unit of scale: the downscaled crop must be larger than a discriminator's
receptive field."""


@dataclass(frozen=True)
class IkeSettings(IkeSwitches, FitSettings):
    """The settings of IKE.

    Raises:
        InputError: A value is out of range.
    """

    iterations: Annotated[int, ITERATIONS] = 3000
    crop: int = 64
    """Side of the crops of the LR image in pixels; less where the image is smaller. The paper's 128
    takes four times as long for an iteration; the receptive field of a discriminator is 7 pixels in
    both cases."""
    batch: int = 1
    """Number of crops in an iteration."""
    growth: int = 32
    """Number of channels that each convolution of a dense block adds."""
    blocks: int = 4
    """Number of couplings in a stage."""
    width: int = 64
    """Number of channels of the upsampler and of the discriminators."""

    def __post_init__(self) -> None:
        """Require values in range."""
        super().__post_init__()
        for name in ("batch", "growth", "blocks", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.crop < MIN_CROP * min(SCALES):
            least = MIN_CROP * min(SCALES)
            raise InputError(f"crop must be {least} pixels or more, got {self.crop}")

    @property
    def identity(self) -> dict[str, int | str | bool]:
        """All that determines the result, as JSON values: every field but the device."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "device"}
