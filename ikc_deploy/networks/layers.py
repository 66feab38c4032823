"""Layers shared by the statistics predictors and corrector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLOOR = 1e-6
"""Added to a variance before the square root, whose gradient at 0 is infinite."""


def conv_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution followed by a ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU(inplace=True))


def widened(x: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; keep wider types."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def statistics(features: Tensor) -> Tensor:
    """Return mean and standard deviation over space: `[N,C,H,W]` to `[N,2C]`, at least float32.

    The standard deviation indicates blur: it measures the energy of each frequency band.
    """
    features = widened(features)
    mean = features.mean(dim=(2, 3))
    centred = features - mean[:, :, None, None]
    deviation = torch.sqrt((centred * centred).mean(dim=(2, 3)) + _FLOOR)
    return torch.cat((mean, deviation), dim=1)
