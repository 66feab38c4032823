"""One HR crop, degraded once: what methods are compared on that take minutes for an image."""

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
from ikc_deploy.imaging.image_io import read_rgb

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class DegradedCrop:
    """Where it is, and what is done to it. Raises `InputError` for no place inside an image."""

    image: Path
    top: int
    left: int
    side: int
    """In HR pixels."""
    degradation: DegradationName
    """Of a random one, the first kernel that `seed` draws."""
    scale: int
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.top, self.left) < 0 or self.side < 1:
            raise InputError("a crop needs a place inside the image and a size")

    def pair(self) -> tuple[Image, Image]:
        """The HR crop, cut to multiples of the scale, and its LR image."""
        whole = read_rgb(self.image)
        hr = whole[self.top : self.top + self.side, self.left : self.left + self.side]
        if hr.shape[:2] != (self.side, self.side):
            raise InputError(f"the crop is not inside '{self.image}', {list(whole.shape[:2])}")
        hr = crop_to_multiple(hr, self.scale)
        blur = BlurSet.degradation(self.degradation, self.scale, self.seed).blurs[0]
        return hr, Degradation().shrink(blur.apply(hr), self.scale, self.image.name)

    def described(self) -> dict[str, Any]:
        """As JSON has it, without folders of this machine."""
        return asdict(self) | {"image": self.image.name}
