"""The invertible network: stages of one split and several couplings.

It processes one colour at a time: the three colours of an image are a batch of three.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.networks.sftmd import SLOPE, initialize_he
from ikc_deploy.offline.ike.ike_settings import IkeSettings
from ikc_deploy.offline.ike.splits import BicubicSplit, PixelSplit, Split

_CONVOLUTIONS = 5
"""Number of convolutions in a dense block."""


class DenseBlock(nn.Module):
    """A block of five densely connected 3x3 convolutions; returns zero before training.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        growth: Number of channels that each convolution adds.
    """

    def __init__(self, inputs: int, outputs: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * (_CONVOLUTIONS - 1) + [outputs]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs + index * growth, width, 3, padding=1)
            for index, width in enumerate(widths)
        )
        initialize_he(self, SLOPE)
        # The couplings are the identity before training.
        nn.init.zeros_(cast(nn.Conv2d, self.convolutions[-1]).weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[N,inputs,H,W]` to `[N,outputs,H,W]`."""
        for convolution in self.convolutions[:-1]:
            added = F.leaky_relu(convolution(features), SLOPE)
            features = torch.cat((features, added), dim=1)
        return cast(Tensor, self.convolutions[-1](features))


class Coupling(nn.Module):
    """A coupling: updates groups of channels of `[N,C,H,W]` in turn, each from the others.

    y is the first channel (the small image), x3 the last (the residual), and middle the channels
    in between; without `tri_channel` there is no x3, and the last channel belongs to the middle.

        y <- y + F(middle);  middle <- middle * exp(S(y)) + G(y);  y <- y + R(x3)

    Args:
        channels: Number of channels C.
        settings: Settings of IKE.
    """

    def __init__(self, channels: int, settings: IkeSettings) -> None:
        super().__init__()
        growth, residual = settings.growth, int(settings.tri_channel)
        middle = channels - 1 - residual
        self.sizes = [1, middle, residual]
        self.from_middle = DenseBlock(middle, 1, growth)
        self.shift = DenseBlock(1, middle, growth)
        self.scale = DenseBlock(1, middle, growth) if settings.coupling == "affine" else None
        self.from_residual = DenseBlock(1, 1, growth) if residual else None

    def forward(self, parts: Tensor) -> Tensor:
        """Return the coupled channels, `[N,C,H,W]` as `parts`."""
        y, middle, residual = torch.split(parts, self.sizes, dim=1)
        y = y + self.from_middle(middle)
        middle = middle * torch.exp(self._log_scale(y)) + self.shift(y)
        if self.from_residual is not None:
            y = y + self.from_residual(residual)
        return torch.cat((y, middle, residual), dim=1)

    def inverse(self, parts: Tensor) -> Tensor:
        """Invert `forward`: undo the updates in reverse order."""
        y, middle, residual = torch.split(parts, self.sizes, dim=1)
        if self.from_residual is not None:
            y = y - self.from_residual(residual)
        middle = (middle - self.shift(y)) * torch.exp(-self._log_scale(y))
        y = y - self.from_middle(middle)
        return torch.cat((y, middle, residual), dim=1)

    def _log_scale(self, y: Tensor) -> Tensor:
        # Bounded to a factor of e, so that training cannot make the inverse ill-conditioned.
        return torch.zeros(()) if self.scale is None else torch.tanh(self.scale(y))


class InvertibleStage(nn.Module):
    """A stage: a split and couplings that map `[N,C,H,W]` to `[N,4*C,H/2,W/2]`.

    Args:
        channels: Number of channels C.
        settings: Settings of IKE.
    """

    def __init__(self, channels: int, settings: IkeSettings) -> None:
        super().__init__()
        self.split: Split = BicubicSplit() if settings.bicubic_residual else PixelSplit()
        self.couplings = nn.ModuleList(
            Coupling(4 * channels, settings) for _ in range(settings.blocks)
        )

    def forward(self, planes: Tensor) -> Tensor:
        """Map `[N,C,H,W]` to `[N,4*C,H/2,W/2]`."""
        parts = self.split.forward(planes)
        for coupling in self.couplings:
            parts = coupling(parts)
        return parts

    def inverse(self, parts: Tensor) -> Tensor:
        """Invert `forward`."""
        for coupling in reversed(self.couplings):
            parts = cast(Coupling, coupling).inverse(parts)
        return self.split.inverse(parts)


class InvertibleNetwork(nn.Module):
    """The invertible network: one stage for x2, two for x4.

    The second stage works on all channels of the first.

    Args:
        scale: Scale factor, 2 or 4.
        settings: Settings of IKE.
    """

    def __init__(self, scale: int, settings: IkeSettings) -> None:
        super().__init__()
        channels = (1,) if scale == 2 else (1, 4)
        self.stages = nn.ModuleList(InvertibleStage(count, settings) for count in channels)
        self.rest = scale * scale - 1
        """Number of channels in addition to the small image."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map colours `[N,1,H,W]`, H and W multiples of the scale s, to small image and rest.

        Returns:
            The small image `[N,1,H/s,W/s]` and the rest `[N,s*s-1,H/s,W/s]`.
        """
        for stage in self.stages:
            image = stage(image)
        return image[:, :1], image[:, 1:]

    def inverse(self, small: Tensor, rest: Tensor) -> Tensor:
        """Invert `forward`: return the image `[N,1,H,W]`."""
        parts = torch.cat((small, rest), dim=1)
        for stage in reversed(self.stages):
            parts = cast(InvertibleStage, stage).inverse(parts)
        return parts
