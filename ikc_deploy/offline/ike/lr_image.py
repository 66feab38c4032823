"""The LR image of a fit: checked before the fit starts, and cut into crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError
from ikc_deploy.offline.ike.ike_settings import MIN_CROP, SCALES, IkeSettings
from ikc_deploy.offline.preconditions import check_device, check_image, check_memory, image_digest

METHOD: Final = "IKE"


def check_lr(lr: NDArray[np.uint8], scale: int, settings: IkeSettings) -> None:
    """Raise `InputError` for an unusable image, scale, crop or device, or too little memory."""
    least = MIN_CROP * scale
    check_image(lr, scale, SCALES, least, METHOD)
    check_device(settings.device)
    if settings.crop < least:
        raise InputError(f"crop must be {least} pixels or more at x{scale}, got {settings.crop}")
    height, width = lr.shape[:2]
    training = _training_bytes(min(settings.crop, height, width), scale, settings)
    needed = max(training, _upscaling_bytes(height * width, scale, settings))
    check_memory(needed, settings.device, METHOD)


def _training_bytes(side: int, scale: int, settings: IkeSettings) -> int:
    """Estimate the bytes that an iteration keeps for the backward pass.

    Measured with the default settings: 0.60 GB at x2 and 2.47 GB at x4; estimated: 0.57 and 2.41.
    """
    # Four dense blocks in a coupling, each with 4 convolutions' outputs before and after
    # activation, and 1, 2, 3 and 4 of them joined; of three colours, in float32.
    each = 3 * 4 * settings.blocks * 18 * settings.growth * 4
    # Every stage works at half the side of the one before, on the crop and on the upscaled crop.
    stages = 1 / 4 if scale == 2 else 1 / 4 + 1 / 16
    return int(each * settings.batch * side**2 * (1 + scale**2) * stages)


def _upscaling_bytes(pixels: int, scale: int, settings: IkeSettings) -> int:
    """Estimate the peak memory, in bytes, of upscaling `pixels` of an LR image.

    Measured for 512x512 with the default settings at x2: 0.44 GB; estimated: 0.47.
    """
    # The last dense block works on one colour at half the final resolution, where four bytes of a
    # pixel are one of a final one; its features exist twice while they are joined.
    dense = 2 * (2 + 4 * settings.growth) + settings.growth
    upsampler = 4 * (2 * settings.width / scale**2 + 6)
    return int(pixels * scale**2 * (dense + upsampler))


@dataclass(frozen=True, eq=False)
class LrImage:
    """An LR image that passed `check_lr`, as a tensor."""

    planes: Tensor
    """Image `[1,C,H,W]`, float32 in [0,1] on the CPU; C is 1 where the three colours are equal."""
    id: str
    """SHA-256 (hex) of the image's size and pixels."""

    @classmethod
    def of(cls, lr: NDArray[np.uint8]) -> LrImage:
        """Return the `LrImage` of RGB `[H,W,3]` uint8."""
        grey = bool((lr == lr[:, :, :1]).all())
        colours = lr[:, :, :1] if grey else lr
        planes = torch.from_numpy(colours.transpose(2, 0, 1).astype(np.float32) / 255)
        return cls(planes[None].contiguous(), image_digest(lr))

    @property
    def colours(self) -> int:
        """Number of colours: 3, or 1 for a grey image."""
        return self.planes.shape[1]

    def crop_side(self, largest: int, scale: int) -> int:
        """Return the side of the crops: a multiple of `scale`, at most `largest`."""
        side = min(largest, *self.planes.shape[-2:])
        return side - side % scale

    def crops(self, count: int, side: int, random: torch.Generator) -> Tensor:
        """Return random crops `[count,C,side,side]`."""
        height, width = self.planes.shape[-2:]
        found = []
        for _ in range(count):
            top = int(torch.randint(height - side + 1, (), generator=random))
            left = int(torch.randint(width - side + 1, (), generator=random))
            found.append(self.planes[..., top : top + side, left : left + side])
        return torch.cat(found)

    def padded(self, scale: int) -> Tensor:
        """Return the image with its last row and column repeated up to multiples of `scale`."""
        height, width = self.planes.shape[-2:]
        return F.pad(self.planes, (0, -width % scale, 0, -height % scale), mode="replicate")
