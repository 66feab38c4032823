"""DANv1 (NeurIPS 2020): Restorer and Estimator of blocks conditioned by concatenation.

Names of parameters are those of the published checkpoints.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.dan_layers import DAN_SLOPE, as_map, conv_pair, upscale_head

_REDUCTION = 16
"""Ratio of the channels of a block to the hidden channels of its attention."""

_HEAD_SIDE = 9
"""Side of the kernel with which the Estimator reads SR images."""


class ChannelAttention(nn.Module):
    """A factor in (0,1) for every channel, from the means of all channels.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // _REDUCTION, 1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LeakyReLU(DAN_SLOPE),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` of the same shape as `x`."""
        return x * cast(Tensor, self.body(x.mean(dim=(2, 3), keepdim=True)))


class Dan1Block(nn.Module):
    """A residual block of features that also sees a condition, which stays unchanged.

    Args:
        channels: Number of channels of the features.
        conditions: Number of channels of the condition.
    """

    def __init__(self, channels: int, conditions: int) -> None:
        super().__init__()
        width = channels + conditions
        self.body = nn.Sequential(
            *conv_pair((width, width), channels, 3), ChannelAttention(channels)
        )

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` from features and condition of the same size."""
        joined = torch.cat((features, condition), dim=1)
        return features + cast(Tensor, self.body(joined))


class Dan1Restorer(nn.Module):
    """The Restorer: LR images and a code, stretched over all pixels, to SR images.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        channels = settings.channels
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.ModuleList(
            Dan1Block(channels, settings.code_size) for _ in range(settings.blocks)
        )
        self.fusion = nn.Conv2d(channels, channels, 3, padding=1)
        self.upscale = upscale_head(channels, settings.scale)

    @property
    def residual_blocks(self) -> list[Dan1Block]:
        """Residual blocks, in order."""
        return [cast(Dan1Block, block) for block in self.body]

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return SR images `[N,3,sH,sW]`, not clamped, from lr `[N,3,H,W]` and codes `[N,C]`."""
        condition = as_map(code).expand(-1, -1, *lr.shape[-2:])
        features = self.head(lr)
        for block in self.body:
            features = block(features, condition)
        return cast(Tensor, self.upscale(self.fusion(features)))


class Dan1Estimator(nn.Module):
    """The Estimator: features of LR images, conditioned by those of SR images, to a code.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        width, scale = settings.estimator_channels // 2, settings.scale
        self.head_LR = nn.Conv2d(3, width, 1)
        self.head_HR = nn.Conv2d(3, width, _HEAD_SIDE, scale, _HEAD_SIDE // 2)
        self.body = nn.ModuleList(Dan1Block(width, width) for _ in range(settings.estimator_blocks))
        self.out = nn.Conv2d(width, settings.code_size, 3, padding=1)

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        """Return codes `[N,code_size]` from sr `[N,3,sH,sW]` and lr `[N,3,H,W]`."""
        features, condition = self.head_LR(lr), self.head_HR(sr)
        for block in self.body:
            features = block(features, condition)
        return cast(Tensor, self.out(features)).mean(dim=(2, 3))
