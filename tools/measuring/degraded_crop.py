"""One degraded HR crop, for comparing methods that take minutes for an image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import BlurSet, DegradationName
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.imaging.degrade import crop_to_multiple
from ikc_deploy.imaging.reading import read_rgb

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class DegradedCrop:
    """A square crop of an HR image, and its degradation.

    Raises:
        InputError: The place or the size is out of range.
    """

    image: Path
    """HR image file."""
    top: int
    """First row of the crop, in HR pixels."""
    left: int
    """First column of the crop, in HR pixels."""
    side: int
    """Side of the crop in HR pixels."""
    degradation: DegradationName
    """Degradation; for a random one, the first kernel that `seed` draws."""
    scale: int
    """Scale factor."""
    seed: int = 0
    """Seed of a random degradation."""

    def __post_init__(self) -> None:
        """Require a corner inside the image and a side of at least one pixel."""
        if min(self.top, self.left) < 0 or self.side < 1:
            raise InputError(
                f"invalid crop: top {self.top}, left {self.left}, side {self.side}; expected top "
                "and left of at least 0 and a side of at least 1"
            )

    def pair(self) -> tuple[Image, Image]:
        """Return the HR crop, cut to multiples of the scale, and its LR image, both uint8.

        Raises:
            InputError: The image cannot be read, or the crop is not inside it.
        """
        whole = read_rgb(self.image)
        hr = whole[self.top : self.top + self.side, self.left : self.left + self.side]
        if hr.shape[:2] != (self.side, self.side):
            raise InputError(f"the crop is not inside '{self.image}', {list(whole.shape[:2])}")
        hr = crop_to_multiple(hr, self.scale)
        blur = BlurSet.degradation(self.degradation, self.scale, self.seed).blurs[0]
        return hr, Degradation().downscale(blur.apply(hr), self.scale, self.image.name)

    def described(self) -> dict[str, Any]:
        """Return the fields as JSON values, without folders of this machine."""
        return asdict(self) | {"image": self.image.name}
