"""Layers that the predictor and the corrector of the statistics designs share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLOOR = 1e-6
"""Addend of a variance before its root: the gradient of sqrt at 0 is infinite."""


def conv_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution with its ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU(inplace=True))


def widened(x: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32; wider types stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def statistics(features: Tensor) -> Tensor:
    """Return mean and deviation over space, `[N,2C]` from `[N,C,H,W]`, in float32 or wider.

    The deviation indicates blur: it measures how much of each frequency band is left.
    """
    features = widened(features)
    mean = features.mean(dim=(2, 3))
    centred = features - mean[:, :, None, None]
    deviation = torch.sqrt((centred * centred).mean(dim=(2, 3)) + _FLOOR)
    return torch.cat((mean, deviation), dim=1)
