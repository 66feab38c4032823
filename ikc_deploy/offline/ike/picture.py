"""The LR image of a fit: refused before any work if it cannot be fitted, and cut into crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError
from ikc_deploy.offline.checks import check_device, check_memory, check_picture, picture_id
from ikc_deploy.offline.ike.settings import SCALES, SMALLEST_CROP, Settings

METHOD: Final = "IKE"


def check(lr: NDArray[np.uint8], scale: int, settings: Settings) -> None:
    """Raise `InputError` for an image, scale, crop or device that no fit can be made with."""
    least = SMALLEST_CROP * scale
    check_picture(lr, scale, SCALES, least, METHOD)
    check_device(settings.device)
    if settings.crop < least:
        raise InputError(f"crop must be {least} pixels or more at x{scale}, got {settings.crop}")
    check_memory(_memory(lr.shape[0] * lr.shape[1], scale, settings), settings.device, METHOD)


def _memory(pixels: int, scale: int, settings: Settings) -> int:
    """Bytes that upscaling `pixels` of an LR image takes at its peak, with float32 features."""
    # The last dense block works on one colour at half the final resolution, where four bytes of a
    # pixel are one of a final one; its features are there twice while they are joined.
    dense = 2 * (2 + 4 * settings.growth) + settings.growth
    upsampler = 4 * (2 * settings.width / scale**2 + 6)
    return int(pixels * scale**2 * (dense + upsampler))


@dataclass(frozen=True, eq=False)
class Picture:
    """An LR image that passed `check`, as a tensor."""

    planes: Tensor
    """`[1,C,H,W]` float32 in [0,1] on the CPU; C is 1 where the three colours are equal."""
    id: str
    """sha256 of its size and pixels."""

    @classmethod
    def of(cls, lr: NDArray[np.uint8]) -> Picture:
        """Of RGB `[H,W,3]`."""
        grey = bool((lr == lr[:, :, :1]).all())
        colours = lr[:, :, :1] if grey else lr
        planes = torch.from_numpy(colours.transpose(2, 0, 1).astype(np.float32) / 255)
        return cls(planes[None].contiguous(), picture_id(lr))

    @property
    def colours(self) -> int:
        """3, or 1 of a grey picture."""
        return self.planes.shape[1]

    def crop_side(self, largest: int, scale: int) -> int:
        """The side of its crops: a multiple of `scale`, at most `largest`."""
        side = min(largest, *self.planes.shape[-2:])
        return side - side % scale

    def crops(self, count: int, side: int, random: torch.Generator) -> Tensor:
        """`[count,C,side,side]` from anywhere."""
        height, width = self.planes.shape[-2:]
        found = []
        for _ in range(count):
            top = int(torch.randint(height - side + 1, (), generator=random))
            left = int(torch.randint(width - side + 1, (), generator=random))
            found.append(self.planes[..., top : top + side, left : left + side])
        return torch.cat(found)

    def padded(self, scale: int) -> Tensor:
        """The whole, its last rows and columns repeated up to multiples of `scale`."""
        height, width = self.planes.shape[-2:]
        return F.pad(self.planes, (0, -width % scale, 0, -height % scale), mode="replicate")
