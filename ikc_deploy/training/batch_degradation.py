"""HR batches to LR batches on any device: blur and shrinking, then 8-bit rounding.

The same operations as `ikc_deploy.imaging.degrade`, batched in torch, one kernel per image.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ikc_deploy.imaging.resize import bicubic_matrix


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate images `[N,C,H,W]` with kernels `[N,k,k]`, one each; the border is reflected."""
    count = images.shape[0]
    reach = kernels.shape[-1] // 2
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    # One group per image: its channels are the batch, its kernel the only filter.
    weights = kernels[:, None].to(images.dtype)
    return F.conv2d(padded.transpose(0, 1), weights, groups=count).transpose(0, 1)


def shrink(images: Tensor, scale: int) -> Tensor:
    """Bicubic shrinking of `[N,C,H,W]` by `scale`, antialiased, symmetric border (imresize)."""
    rows = _matrix(images.shape[-2], scale, images)
    columns = _matrix(images.shape[-1], scale, images)
    return rows @ images @ columns.T


def degrade(hr: Tensor, kernels: Tensor, scale: int) -> Tensor:
    """LR `[N,3,H/s,W/s]` of HR `[N,3,H,W]`, both float in [0,1], not rounded yet."""
    return shrink(blur(hr, kernels), scale)


def degrade_circular(hr: Tensor, kernels: Tensor, scale: int) -> Tensor:
    """The same in the FKP convention: blur that wraps round, then every `scale`-th pixel.

    Kernels `[N,k,k]` reach no further than the images are large.
    """
    count, reach = hr.shape[0], kernels.shape[-1] // 2
    padded = F.pad(hr, (reach, reach, reach, reach), mode="circular").transpose(0, 1)
    return F.conv2d(padded, kernels[:, None], stride=scale, groups=count).transpose(0, 1)


def quantized(images: Tensor) -> Tensor:
    """Images in [0,1] on the grid of 8-bit levels, as files hold them."""
    return (images * 255).round().clamp(0, 255) / 255


def _matrix(length: int, scale: int, like: Tensor) -> Tensor:
    matrix = np.array(bicubic_matrix(length, 1 / scale))
    return torch.from_numpy(matrix).to(like.device, like.dtype)
