"""JPEG compression of batches on any device: the loss of a file of a given quality.

The baseline of ITU-T T.81 without its lossless half: YCbCr (JFIF), chroma at half resolution,
8x8 DCT, the quantisation tables of Annex K scaled by the quality as the IJG library does.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ikc_deploy.imaging.metrics import LUMA_WEIGHTS

_BLOCK: Final = 8
_LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation table of luma: T.81, table K.1."""
_CHROMA: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
"""Quantisation table of chroma: T.81, table K.2."""
_TO_YCBCR: Final = (
    LUMA_WEIGHTS,
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
"""Matrix from RGB to YCbCr: JFIF 1.02, full range; Cb and Cr without their offset of 128."""


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Return images after JPEG compression.

    Chroma is subsampled 4:2:0. The result is within one level of that of the IJG library on average
    (tested), whose integer arithmetic is not imitated.

    Args:
        images: RGB images `[N,3,H,W]` in [0,1].
        quality: Quality `[N]` of each, 1 to 100, on the device of `images`.

    Returns:
        Images `[N,3,H,W]` float32 in [0,1], on the 8-bit grid.
    """
    height, width = images.shape[-2:]
    side = 2 * _BLOCK
    padding = (0, -width % side, 0, -height % side)
    padded = F.pad(images.float() * 255, padding, mode="replicate")
    to_ycbcr, to_rgb = _colour_matrices(images.device)
    ycbcr = torch.einsum("dc,nchw->ndhw", to_ycbcr, padded).round()
    luma = _compressed(ycbcr[:, :1] - 128, _table(_LUMA, quality)) + 128
    chroma = _compressed(F.avg_pool2d(ycbcr[:, 1:], 2).round(), _table(_CHROMA, quality))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.cat((luma.clamp(0, 255), chroma.clamp(-128, 127)), dim=1).round()
    rgb = torch.einsum("dc,nchw->ndhw", to_rgb, decoded)
    return rgb[..., :height, :width].round().clamp(0, 255) / 255


def _table(base: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Return the quantisation steps `[N,1,8,8]` of each image."""
    quality = quality.float()[:, None, None, None]
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((_constant(base, quality.device) * percent + 50) / 100).floor().clamp(1, 255)


def _compressed(planes: Tensor, steps: Tensor) -> Tensor:
    """Return planes `[N,C,8a,8b]` after DCT, quantisation and inverse DCT."""
    basis = _dct(planes.device)
    count, channels, height, width = planes.shape
    shape = (count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    blocks = planes.reshape(shape).transpose(-2, -3)
    steps = steps[:, :, None, None]
    coefficients = ((basis @ blocks @ basis.T) / steps).round() * steps
    decoded = basis.T @ coefficients @ basis
    return decoded.transpose(-2, -3).reshape(planes.shape).round()


# Constants are cached, because a copy to a GPU at every batch would wait for all its queued work.
@cache
def _constant(values: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device, dtype=torch.float32)


@cache
def _colour_matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the matrices from RGB to YCbCr and back."""
    to_ycbcr = torch.tensor(_TO_YCBCR)
    return to_ycbcr.to(device), torch.linalg.inv(to_ycbcr).to(device)


@cache
def _dct(device: torch.device) -> Tensor:
    """Return the matrix `[8,8]` of the orthonormal DCT-II of eight points."""
    order = torch.arange(_BLOCK, device=device, dtype=torch.float32)
    angles = math.pi / _BLOCK * order[:, None] * (order[None, :] + 0.5)
    scale = torch.full((_BLOCK, 1), math.sqrt(2 / _BLOCK), device=device)
    scale[0] = math.sqrt(1 / _BLOCK)
    return scale * torch.cos(angles)
