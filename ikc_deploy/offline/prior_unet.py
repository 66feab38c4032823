"""The deep image prior: a U-Net whose structure alone prefers images to noise (CVPR 2018).

Fitted to one image, with fixed noise as the input, it reproduces textures and edges long before it
reproduces noise. It has five levels of 128 channels with skip connections of 16 channels (FKP, CVPR
2021, supplement). Unlike the reference implementation, it has no self-attention.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE_CHANNELS: Final = 3
NOISE_PEAK: Final = 0.1
_SLOPE: Final = 0.2


def smallest_side(levels: int) -> int:
    """Return the smallest side of an image in pixels, which the reflected border requires."""
    return 2**levels + 1


class DeepImagePrior(nn.Module):
    """A U-Net that maps noise `[1,3,h,w]` to an image `[1,3,h,w]` in [0,1].

    Both sides must be at least `smallest_side`.

    Args:
        channels: Number of channels of every level.
        levels: Number of levels; each halves both sides.
        skip: Number of channels of the skip connections.
    """

    def __init__(self, channels: int, levels: int, skip: int) -> None:
        super().__init__()
        inner: nn.Module = nn.Identity()
        for level in reversed(range(levels)):
            inputs = channels if level else NOISE_CHANNELS
            inner = _Level(inputs, channels, skip, inner)
        self.layers = nn.Sequential(inner, nn.Conv2d(channels, 3, 1), nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        """Map noise to an image; see the class."""
        picture: Tensor = self.layers(noise)
        return picture


class _Level(nn.Module):
    """A level: a branch at half the resolution, and a skip connection at full resolution."""

    def __init__(self, inputs: int, channels: int, skip: int, inner: nn.Module) -> None:
        super().__init__()
        self.skip = _block(inputs, skip, 1)
        self.down = nn.Sequential(
            _block(inputs, channels, 3, stride=2), _block(channels, channels, 3), inner
        )
        self.up = nn.Sequential(
            _normalization(skip + channels),
            _block(skip + channels, channels, 3),
            _block(channels, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        skipped = self.skip(features)
        # The exact size is given, because sides may be odd.
        lower = F.interpolate(self.down(features), size=skipped.shape[-2:], mode="bilinear")
        merged: Tensor = self.up(torch.cat([skipped, lower], dim=1))
        return merged


def _block(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode="reflect"),
        _normalization(outputs),
        nn.LeakyReLU(_SLOPE),
    )


def _normalization(channels: int) -> nn.BatchNorm2d:
    # There is one image, so its own statistics are used during and after the fit.
    return nn.BatchNorm2d(channels, track_running_stats=False)
