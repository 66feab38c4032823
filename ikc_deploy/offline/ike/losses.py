"""What a fit wants: every loss a mean over samples in [0,1], so that weights mean the same at any
size of crop. Images are `[N,C,H,W]`, C 3, or 1 for a grey picture."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA: Final = (0.299, 0.587, 0.114)
"""BT.601."""

ENERGY_SIGMA: Final = 3.0
"""Pixels: wide enough to leave brightness and no structure."""

EDGE: Final = 0.04
"""Change of luma from pixel to pixel that makes an edge: ten 8-bit levels."""


def lsgan_loss(scores: Tensor, real: bool) -> Tensor:
    """How far a discriminator's scores are from "real", or from "made" (least squares)."""
    return (scores - float(real)).square().mean()


def energy(image: Tensor, reference: Tensor) -> Tensor:
    """L_energy: the mean distance of blurred luma."""
    return F.l1_loss(_blurred(luma(image)), _blurred(luma(reference)))


def interpolation(image: Tensor, bicubic: Tensor) -> Tensor:
    """L_inter: the mean distance from the bicubic image where that has no edge."""
    smooth = away_from_edges(bicubic)
    return ((image - bicubic).abs() * smooth).mean()


def total_variation(image: Tensor) -> Tensor:
    """The mean difference of neighbours, down and across."""
    down, across = image.diff(dim=-2), image.diff(dim=-1)
    return down.abs().mean() + across.abs().mean()


def luma(image: Tensor) -> Tensor:
    """`[N,1,H,W]` of RGB, or of one colour as it is."""
    if image.shape[1] == 1:
        return image
    weights = torch.tensor(_LUMA, dtype=image.dtype, device=image.device)
    return (image * weights[:, None, None]).sum(dim=1, keepdim=True)


def away_from_edges(image: Tensor) -> Tensor:
    """1 where luma changes by less than `EDGE` from pixel to pixel, else 0: `[N,1,H,W]`."""
    padded = F.pad(luma(image), (1, 1, 1, 1), mode="replicate")
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return (down.square() + across.square() < EDGE**2).to(image.dtype)


def _blurred(plane: Tensor) -> Tensor:
    profile = _profile(plane.dtype, plane.device)
    reach = profile.numel() // 2
    padded = F.pad(plane, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, profile.view(1, 1, -1, 1)), profile.view(1, 1, 1, -1))


@lru_cache(maxsize=8)
def _profile(dtype: torch.dtype, device: torch.device) -> Tensor:
    reach = round(3 * ENERGY_SIGMA)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / ENERGY_SIGMA) ** 2)
    return (weights / weights.sum()).to(device, dtype)
