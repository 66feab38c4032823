"""What the predictor and the corrector of the compact design share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLOOR = 1e-6
"""Added to a variance before its root: the gradient of sqrt at 0 is infinite."""


def conv_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution and its ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU(inplace=True))


def widened(x: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; wider types stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def statistics(features: Tensor) -> Tensor:
    """Mean and standard deviation over space, in float32 or wider: `[N,C,H,W]` gives `[N,2C]`.

    The deviation is what tells blur: it measures how much of each frequency band is left.
    """
    features = widened(features)
    mean = features.mean(dim=(2, 3))
    centred = features - mean[:, :, None, None]
    deviation = torch.sqrt((centred * centred).mean(dim=(2, 3)) + _FLOOR)
    return torch.cat((mean, deviation), dim=1)
