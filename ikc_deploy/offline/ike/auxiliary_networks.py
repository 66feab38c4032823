"""The networks trained with the invertible network: the rest's upsampler, the discriminators."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ikc_deploy.imaging.torch_ops import resize
from ikc_deploy.networks.sftmd import SLOPE, initialize_he

_UPSAMPLER_CONVOLUTIONS = 8
_RECEPTIVE_FIELD = 7
"""Side of a discriminator's receptive field in pixels."""
_POINTWISE_CONVOLUTIONS = 5


class Upsampler(nn.Module):
    """U: maps the rest of an image (of all colours) to the rest of an image s times as large.

    Bicubic upscaling of `[N,C,H,W]`, plus eight 3x3 convolutions, of which the last returns zero
    before training, so that an untrained network adds no noise.

    Args:
        channels: Number of channels of the rest.
        scale: Scale factor s.
        width: Number of channels between the convolutions.
    """

    def __init__(self, channels: int, scale: int, width: int) -> None:
        super().__init__()
        self.scale = scale
        sizes = [channels, *[width] * (_UPSAMPLER_CONVOLUTIONS - 1), channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[index], sizes[index + 1], 3, padding=1)
            for index in range(_UPSAMPLER_CONVOLUTIONS)
        )
        initialize_he(self, SLOPE)
        nn.init.zeros_(cast(nn.Conv2d, self.convolutions[-1]).weight)

    def forward(self, rest: Tensor) -> Tensor:
        """Return the rest `[N,C,s*H,s*W]` of the larger image, given `[N,C,H,W]`."""
        features = resize(rest, self.scale)
        for convolution in self.convolutions[:-1]:
            features = F.leaky_relu(convolution(features), SLOPE)
        return cast(Tensor, self.convolutions[-1](features))


class Discriminator(nn.Module):
    """A discriminator: maps an image `[N,C,H,W]` to scores `[N,1,H-6,W-6]` of its 7x7 patches.

    It is trained towards 1 for real patches and 0 for generated ones. All convolutions are
    spectrally normalised.

    Args:
        colours: Number of channels C of the image.
        width: Number of channels between the convolutions.
    """

    def __init__(self, colours: int, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(colours, width, _RECEPTIVE_FIELD)]
        convolutions += [nn.Conv2d(width, width, 1) for _ in range(_POINTWISE_CONVOLUTIONS - 1)]
        convolutions.append(nn.Conv2d(width, 1, 1))
        for convolution in convolutions:
            initialize_he(convolution, SLOPE)
        self.convolutions = nn.ModuleList(map(spectral_norm, convolutions))

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores `[N,1,H-6,W-6]` of an image `[N,C,H,W]`."""
        scores = self.convolutions[0](image)
        for convolution in self.convolutions[1:]:
            scores = convolution(F.leaky_relu(scores, SLOPE))
        return cast(Tensor, scores)
