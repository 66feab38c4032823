"""The deep image prior: a U-Net whose shape alone prefers pictures to noise (CVPR 2018).

Fitted to one picture from fixed noise, it makes natural textures and edges long before it could
make noise. Five levels of 128 channels with skips of 16 (FKP, CVPR 2021, supplement). Where the
reference implementation has self-attention in its three deepest levels, this one has none.
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
    """Pixels that a picture must have on a side: the deepest level still reflects one."""
    return 2**levels + 1


class DeepImagePrior(nn.Module):
    """Noise `[1,3,h,w]` to a picture `[1,3,h,w]` in [0,1], of any size from `smallest_side`."""

    def __init__(self, channels: int, levels: int, skip: int) -> None:
        super().__init__()
        deeper: nn.Module = nn.Identity()
        for level in reversed(range(levels)):
            entering = channels if level else NOISE_CHANNELS
            deeper = _Level(entering, channels, skip, deeper)
        self.layers = nn.Sequential(deeper, nn.Conv2d(channels, 3, 1), nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        """See the class."""
        picture: Tensor = self.layers(noise)
        return picture


class _Level(nn.Module):
    """Half the size and back, beside a narrow way at full size."""

    def __init__(self, entering: int, channels: int, skip: int, deeper: nn.Module) -> None:
        super().__init__()
        self.skip = _block(entering, skip, 1)
        self.down = nn.Sequential(
            _block(entering, channels, 3, stride=2), _block(channels, channels, 3), deeper
        )
        self.up = nn.Sequential(
            _normalization(skip + channels),
            _block(skip + channels, channels, 3),
            _block(channels, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        skipped = self.skip(features)
        # To the very size, which is not twice the half if it is odd.
        deep = F.interpolate(self.down(features), size=skipped.shape[-2:], mode="bilinear")
        merged: Tensor = self.up(torch.cat([skipped, deep], dim=1))
        return merged


def _block(entering: int, leaving: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entering, leaving, size, stride, size // 2, padding_mode="reflect"),
        _normalization(leaving),
        nn.LeakyReLU(_SLOPE),
    )


def _normalization(channels: int) -> nn.BatchNorm2d:
    # There is one picture: its own statistics are all there are, while fitting and after.
    return nn.BatchNorm2d(channels, track_running_stats=False)
