"""The fixed part of a stage: a lossless split of a plane into four of half the side.

`PixelSplit` distributes the pixels of every 2x2 square. `BicubicSplit` makes the first plane the
bicubic small image b = D x, and the other three the details of the residual r = x - U b, on which
the stage's couplings then work (D halves bicubically, U doubles).

b and r have five samples for every four of x, so one is dropped, and the inverse must recover it
exactly: it must not depend on what the network has learnt. Of each 2x2 square of r, the three
Haar differences are kept and the mean m is dropped. As D x = b, and r is the mean repeated (N m)
plus the part of the differences (H d):

    D N m = b - D (U b + H d)

D N blurs the small image slightly (0.867 on its diagonal, 0.08 and -0.01 beside it), so it has
a well-conditioned inverse, a matrix for rows and one for columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ikc_deploy.imaging.resize import bicubic_matrix
from ikc_deploy.imaging.torch_ops import resize


class Split(Protocol):
    """A bijection between `[N,C,H,W]`, H and W even, and `[N,4*C,H/2,W/2]`."""

    def forward(self, planes: Tensor) -> Tensor:
        """Split `[N,C,H,W]` into `[N,4*C,H/2,W/2]`."""
        ...

    def inverse(self, parts: Tensor) -> Tensor:
        """Invert `forward`."""
        ...


class PixelSplit:
    """A split in which the four pixels of every 2x2 square become channels."""

    def forward(self, planes: Tensor) -> Tensor:
        """Split `[N,C,H,W]` into `[N,4*C,H/2,W/2]`, the four channels of a plane adjacent."""
        return F.pixel_unshuffle(planes, 2)

    def inverse(self, parts: Tensor) -> Tensor:
        """Invert `forward` exactly."""
        return F.pixel_shuffle(parts, 2)


class BicubicSplit:
    """A split of the first plane into its bicubic half and three details.

    Other planes are split as in `PixelSplit`.
    """

    def forward(self, planes: Tensor) -> Tensor:
        """Split `[N,C,H,W]` into `[N,4*C,H/2,W/2]`, the bicubic half of the first plane first."""
        first = planes[:, :1]
        half = resize(first, 0.5)
        details = _haar(F.pixel_unshuffle(first - resize(half, 2), 2))[:, 1:]
        # All planes are split together: torch misshapes a tensor without channels.
        others = F.pixel_unshuffle(planes, 2)[:, 4:]
        return torch.cat((half, details, others), dim=1)

    def inverse(self, parts: Tensor) -> Tensor:
        """Invert `forward`, up to rounding."""
        half, details, others = parts[:, :1], parts[:, 1:4], parts[:, 4:]
        without_mean = _from_haar(torch.cat((torch.zeros_like(half), details), dim=1))
        planes = F.pixel_shuffle(torch.cat((without_mean, others), dim=1), 2)
        first = planes[:, :1] + resize(half, 2)
        missing = half - resize(first, 0.5)
        rows = _unblurring(half.shape[-2], half.dtype, half.device)
        columns = _unblurring(half.shape[-1], half.dtype, half.device)
        mean = rows @ missing @ columns.T
        first = first + F.interpolate(mean, scale_factor=2.0, mode="nearest")
        return torch.cat((first, planes[:, 1:]), dim=1)


def _haar(pixels: Tensor) -> Tensor:
    """Map the four pixels of squares `[N,4,H,W]` to half their sum and three halved differences."""
    a, b, c, d = pixels.unbind(dim=1)
    combined = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
    return torch.stack(combined, dim=1) / 2


_from_haar = _haar
"""Haar transform of four pixels; orthogonal and symmetric, so its own inverse."""


@lru_cache(maxsize=32)
def _unblurring(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the inverse `[length, length]` of pixel repetition and bicubic halving on one axis."""
    blurring = bicubic_matrix(2 * length, 0.5) @ np.repeat(np.eye(length), 2, axis=0)
    return torch.from_numpy(np.linalg.inv(blurring)).to(device, dtype)
