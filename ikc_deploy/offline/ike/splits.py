"""The fixed half of a stage: a plane becomes four of half the side, and back, without loss.

`PixelSplit` deals out the pixels of every 2x2 square. `BicubicSplit` makes the first plane the
bicubic small image b = D x, and the other three the details of the residual r = x - U b, in which
the stage's couplings then work (D halves bicubically, U doubles).

b and r have five samples for every four of x, so one must go, and the inverse must get it back
exactly: the way back may not depend on what the network has learnt. Of each 2x2 square of r, the
three differences are kept (Haar's) and the mean m is dropped. As D x = b, and r is the mean
repeated (N m) plus the part that the differences make (H d):

    D N m = b - D (U b + H d)

D N blurs the small image slightly (0.867 on its diagonal, 0.08 and -0.01 beside it), so that it has
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
from ikc_deploy.offline.ike.resizing import resize


class Split(Protocol):
    """A bijection of `[N,C,H,W]`, H and W even, and `[N,4*C,H/2,W/2]`."""

    def forward(self, planes: Tensor) -> Tensor:
        """To four times the channels."""
        ...

    def inverse(self, parts: Tensor) -> Tensor:
        """Back."""
        ...


class PixelSplit:
    """The four pixels of every 2x2 square become channels."""

    def forward(self, planes: Tensor) -> Tensor:
        """`[N,C,H,W]` to `[N,4*C,H/2,W/2]`, the four of a plane side by side."""
        return F.pixel_unshuffle(planes, 2)

    def inverse(self, parts: Tensor) -> Tensor:
        """Exactly back."""
        return F.pixel_shuffle(parts, 2)


class BicubicSplit:
    """The first plane becomes its bicubic half and three details; others, as in `PixelSplit`."""

    def forward(self, planes: Tensor) -> Tensor:
        """`[N,C,H,W]` to `[N,4*C,H/2,W/2]`: first the bicubic half of the first plane."""
        first = planes[:, :1]
        half = resize(first, 0.5)
        details = _haar(F.pixel_unshuffle(first - resize(half, 2), 2))[:, 1:]
        # Dealt out all together: torch misshapes a tensor without channels.
        others = F.pixel_unshuffle(planes, 2)[:, 4:]
        return torch.cat((half, details, others), dim=1)

    def inverse(self, parts: Tensor) -> Tensor:
        """Back, to within rounding."""
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
    """The four pixels of squares `[N,4,H,W]` to half their sum and three halved differences."""
    a, b, c, d = pixels.unbind(dim=1)
    combined = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
    return torch.stack(combined, dim=1) / 2


_from_haar = _haar
"""The matrix is orthogonal and symmetric: its own inverse."""


@lru_cache(maxsize=32)
def _unblurring(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The inverse `[length, length]` of pixel repetition and bicubic halving, along one axis."""
    blurring = bicubic_matrix(2 * length, 0.5) @ np.repeat(np.eye(length), 2, axis=0)
    return torch.from_numpy(np.linalg.inv(blurring)).to(device, dtype)
