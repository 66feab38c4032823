"""DANv1 (NeurIPS 2020) and DANv2 (2021): the Restorer and the Estimator of either version.

DANv1's blocks read a condition by concatenation; in those of DANv2, one branch scales the other.
DANv2's Estimator returns a whole kernel; its code is the product with the kernel basis.

Names of parameters are those of the published checkpoints. The published code of DANv2 changes the
branches of a group in place, so that the group's skip connection adds the result to itself: a group
returns both branches doubled.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn

from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.architecture import Architecture

DAN_SLOPE: Final = 0.2
"""Slope of every LeakyReLU."""

GROUP_GAIN = 2.0
"""Factor by which a group of DANv2 multiplies what passed through it."""

_REDUCTION = 16
"""Ratio of the channels of a block of DANv1 to the hidden channels of its attention."""

_HEAD_SIDE = 9
"""Side of the kernel with which DANv1's Estimator reads SR images."""


def conv_pair(first: tuple[int, int], outputs: int, side: int) -> nn.Sequential:
    """Return two convolutions of `side` with a LeakyReLU between them.

    Args:
        first: Numbers of input and of output channels of the first convolution.
        outputs: Number of output channels of the second.
        side: Side of both kernels, odd.
    """
    return nn.Sequential(
        nn.Conv2d(*first, side, padding=side // 2),
        nn.LeakyReLU(DAN_SLOPE),
        nn.Conv2d(first[1], outputs, side, padding=side // 2),
    )


def upscale_head(channels: int, scale: int) -> nn.Sequential:
    """Return pairs of a convolution and a PixelShuffle (two for x4), then a convolution to RGB."""
    layers: list[nn.Module] = []
    for factor in (2, 2) if scale == 4 else (scale,):
        layers.append(nn.Conv2d(channels, channels * factor**2, 3, padding=1))
        layers.append(nn.PixelShuffle(factor))
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))


def as_map(code: Tensor) -> Tensor:
    """Return codes `[N,C]` as maps of one pixel, `[N,C,1,1]`."""
    return code[:, :, None, None]


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
    """DANv1's Restorer: LR images and a code, stretched over all pixels, to SR images.

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
    """DANv1's Estimator: features of LR images, conditioned by those of SR images, to a code.

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


class Dan2Block(nn.Module):
    """Two branches, each residual; the second one scales the residual of the first.

    Args:
        channels: Number of channels of both branches.
        side: Side of the second branch's kernels; that of the first branch's is 3.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.body1 = conv_pair((channels, channels), channels, 3)
        self.body2 = conv_pair((channels, channels), channels, side)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return both branches, of the same shapes; `second` may have one pixel only."""
        scale = self.body2(second)
        return first + self.body1(first) * scale, second + scale


class Dan2Group(nn.Module):
    """Blocks in sequence, whose result is doubled.

    Args:
        channels: Number of channels of both branches.
        side: Side of the second branch's kernels.
        blocks: Number of blocks.
    """

    def __init__(self, channels: int, side: int, blocks: int) -> None:
        super().__init__()
        self.body = nn.ModuleList(Dan2Block(channels, side) for _ in range(blocks))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return both branches, of the same shapes."""
        for block in self.body:
            first, second = block(first, second)
        return GROUP_GAIN * first, GROUP_GAIN * second


class Dan2Restorer(nn.Module):
    """DANv2's Restorer: LR images to SR images, scaled by a vector that comes from the code.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        channels = settings.channels
        self.head1 = nn.Conv2d(3, channels, 3, padding=1)
        self.head2 = nn.Conv2d(settings.code_size, channels, 1)
        self.body = nn.ModuleList(
            Dan2Group(channels, 1, settings.blocks) for _ in range(settings.groups)
        )
        self.fusion = nn.Conv2d(channels, channels, 3, padding=1)
        self.upscale = upscale_head(channels, settings.scale)

    @property
    def residual_blocks(self) -> list[Dan2Block]:
        """Residual blocks of all groups, in order."""
        groups = (cast(Dan2Group, group) for group in self.body)
        return [cast(Dan2Block, block) for group in groups for block in group.body]

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return SR images `[N,3,sH,sW]`, not clamped, from lr `[N,3,H,W]` and codes `[N,C]`."""
        features, vector = self.head1(lr), self.head2(as_map(code))
        for group in self.body:
            features, vector = group(features, vector)
        return cast(Tensor, self.upscale(self.fusion(features)))


class Dan2Estimator(nn.Module):
    """DANv2's Estimator: features of LR images, scaled by those of SR images, to a kernel.

    Args:
        settings: Sizes of the networks.
        basis: Basis in which the kernel's code is expressed.
    """

    encoder: Tensor
    """Matrix `[kernel pixels, code_size]` of the basis."""

    def __init__(self, settings: Architecture, basis: KernelBasis) -> None:
        super().__init__()
        channels, scale = settings.estimator_channels, settings.scale
        width = channels // 2
        self.head_LR = nn.Sequential(nn.Conv2d(3, width, 5, padding=2))
        self.head_HR = nn.Sequential(nn.Conv2d(3, width, 4 * scale + 1, scale, 2 * scale))
        self.body = Dan2Group(width, 3, settings.estimator_blocks)
        self.tail = nn.Sequential(
            nn.Conv2d(width, channels, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, settings.kernel_size**2, 1),
            nn.Softmax(1),
        )
        # Stored once, as the basis of the networks.
        self.register_buffer("encoder", torch.tensor(basis.components), persistent=False)

    def kernels(self, sr: Tensor, lr: Tensor) -> Tensor:
        """Return kernels `[N,K*K]` of sum 1 from sr `[N,3,sH,sW]` and lr `[N,3,H,W]`."""
        features, _ = self.body(self.head_LR(lr), self.head_HR(sr))
        return cast(Tensor, self.tail(features)).flatten(1)

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        """Return codes `[N,code_size]` of the kernels of sr `[N,3,sH,sW]` and lr `[N,3,H,W]`."""
        return self.kernels(sr, lr) @ self.encoder
