"""The losses of a fit.

Every loss is a mean over samples in [0,1], so that weights mean the same at any size of crop.
Images are `[N,C,H,W]`; C is 3, or 1 for a grey image.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor

from ikc_deploy.imaging.torch_ops import gaussian_filter, luma

ENERGY_SIGMA: Final = 3.0
"""Standard deviation of the blur of luma in pixels: keeps brightness, removes structure."""

EDGE: Final = 0.04
"""Smallest change of luma from pixel to pixel at an edge: ten 8-bit levels."""


def lsgan_loss(scores: Tensor, real: bool) -> Tensor:
    """Return the mean squared distance of scores from 1 if `real`, otherwise from 0 (LSGAN)."""
    return (scores - float(real)).square().mean()


def energy(image: Tensor, reference: Tensor) -> Tensor:
    """Return L_energy: the mean distance of blurred luma."""
    return F.l1_loss(_blurred(luma(image)), _blurred(luma(reference)))


def interpolation(image: Tensor, bicubic: Tensor) -> Tensor:
    """Return L_inter: the mean distance from the bicubic image where that has no edge."""
    smooth = away_from_edges(bicubic)
    return ((image - bicubic).abs() * smooth).mean()


def total_variation(image: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbours, vertical and horizontal."""
    down, across = image.diff(dim=-2), image.diff(dim=-1)
    return down.abs().mean() + across.abs().mean()


def away_from_edges(image: Tensor) -> Tensor:
    """Return `[N,1,H,W]`: 1 where luma changes by less than `EDGE` between pixels, else 0."""
    padded = F.pad(luma(image), (1, 1, 1, 1), mode="replicate")
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return (down.square() + across.square() < EDGE**2).to(image.dtype)


def _blurred(plane: Tensor) -> Tensor:
    reach = round(3 * ENERGY_SIGMA)
    padded = F.pad(plane, (reach,) * 4, mode="replicate")
    return gaussian_filter(padded, ENERGY_SIGMA, reach)
