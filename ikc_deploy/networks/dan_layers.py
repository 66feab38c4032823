"""Layers that both versions of DAN share: leaky activations, and the heads that upscale."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

DAN_SLOPE: Final = 0.2
"""Slope of every LeakyReLU of DAN."""


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


def upscale_factors(scale: int) -> tuple[int, ...]:
    """Return the factors of the PixelShuffles in sequence: two of 2 for x4, otherwise one."""
    return (2, 2) if scale == 4 else (scale,)


def upscale_head(channels: int, scale: int) -> nn.Sequential:
    """Return convolutions and PixelShuffles in turn, and the convolution to RGB."""
    layers: list[nn.Module] = []
    for factor in upscale_factors(scale):
        layers.append(nn.Conv2d(channels, channels * factor**2, 3, padding=1))
        layers.append(nn.PixelShuffle(factor))
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))


def as_map(code: Tensor) -> Tensor:
    """Return codes `[N,C]` as maps of one pixel, `[N,C,1,1]`."""
    return code[:, :, None, None]
