"""DANv2 (2021): Restorer and Estimator of blocks in which one branch scales the other.

The Estimator returns a whole kernel; its code is the product with the kernel basis. Names of
parameters are those of the published checkpoints. Their code changes the branches of a group in
place, so that the group's skip connection adds the result to itself: a group returns both branches
doubled.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.dan_layers import as_map, conv_pair, upscale_head

GROUP_GAIN = 2.0
"""Factor by which a group multiplies what passed through it."""


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
    """The Restorer: LR images to SR images, scaled by a vector that comes from the code.

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
    """The Estimator: features of LR images, scaled by those of SR images, to a kernel.

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
