"""SSIM as a differentiable loss."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW: Final = 11
_SIGMA: Final = 1.5
_C1: Final = 0.01**2
_C2: Final = 0.03**2


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Return the mean structural similarity of two images (Wang et al. 2004).

    Gaussian windows of 11 pixels, only where they fit; sides must be at least that long.

    Args:
        image: `[N,C,H,W]` in [0,1].
        reference: `[N,C,H,W]` in [0,1].

    Returns:
        A differentiable scalar, at most 1.
    """
    offsets = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    profile = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    profile = profile / profile.sum()
    channels = image.shape[1]
    rows = profile.view(1, 1, -1, 1).expand(channels, -1, -1, -1)
    columns = profile.view(1, 1, 1, -1).expand(channels, -1, -1, -1)

    def local(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, rows, groups=channels), columns, groups=channels)

    mean_a, mean_b = local(image), local(reference)
    variance_a = local(image * image) - mean_a**2
    variance_b = local(reference * reference) - mean_b**2
    covariance = local(image * reference) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return (luminance * structure).mean()
