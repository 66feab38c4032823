"""Degradation of HR batches to LR batches on any device: blur, shrinking, 8-bit rounding.

The same operations as `ikc_deploy.imaging.degrade`, batched in torch, one kernel per image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ikc_deploy.imaging.resize import bicubic_matrix


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate images `[N,C,H,W]` with kernels `[N,k,k]`, one per image; reflect the border."""
    count = images.shape[0]
    reach = kernels.shape[-1] // 2
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    if images.is_cuda:
        # cuDNN has no fast kernel for large filters with one group per image.
        return correlate_by_fft(padded, kernels)[..., : images.shape[-2], : images.shape[-1]]
    # One group per image: its channels are the batch, its kernel the only filter.
    weights = kernels[:, None].to(images.dtype)
    return F.conv2d(padded.transpose(0, 1), weights, groups=count).transpose(0, 1)


def shrink(images: Tensor, scale: int) -> Tensor:
    """Shrink `[N,C,H,W]` by `scale`, bicubic, antialiased, with symmetric border (imresize)."""
    rows = _matrix(images.shape[-2], scale, images.device, images.dtype)
    columns = _matrix(images.shape[-1], scale, images.device, images.dtype)
    return rows @ images @ columns.T


def degrade(hr: Tensor, kernels: Tensor, scale: int) -> Tensor:
    """Return LR images of HR images in the IKC convention: blur, then bicubic shrinking.

    Args:
        hr: HR images `[N,3,H,W]` in [0,1]; H and W are multiples of `scale`.
        kernels: Blur kernels `[N,k,k]`, odd k, sum 1, on the device of `hr`.
        scale: SR factor.

    Returns:
        LR images `[N,3,H/s,W/s]` of the dtype of `hr`, not rounded.
    """
    return shrink(blur(hr, kernels), scale)


def degrade_circular(hr: Tensor, kernels: Tensor, scale: int) -> Tensor:
    """Return LR images of HR images in the FKP convention: circular blur, every `scale`-th pixel.

    Args:
        hr: HR images `[N,3,H,W]` in [0,1], at least k // 2 pixels on each side.
        kernels: Blur kernels `[N,k,k]`, odd k, sum 1, of the dtype and on the device of `hr`.
        scale: SR factor.

    Returns:
        LR images `[N,3,H/s,W/s]`, not rounded.
    """
    count, reach = hr.shape[0], kernels.shape[-1] // 2
    padded = F.pad(hr, (reach, reach, reach, reach), mode="circular").transpose(0, 1)
    return F.conv2d(padded, kernels[:, None], stride=scale, groups=count).transpose(0, 1)


def quantized(images: Tensor) -> Tensor:
    """Return images in [0,1] rounded to 8-bit levels, as in files."""
    return (images * 255).round().clamp(0, 255) / 255


def correlate_by_fft(padded: Tensor, kernels: Tensor) -> Tensor:
    """Return the circular correlation of images with kernels, one per image.

    Args:
        padded: Images `[N,C,H,W]`.
        kernels: Kernels `[N,k,k]`.

    Returns:
        Images `[N,C,H,W]`: entry (y, x) is the sum over (i, j) of kernel (i, j) times image
        (y + i, x + j). Without wrapping around, the first H - k + 1 rows and W - k + 1 columns.
    """
    size = padded.shape[-2:]
    response = torch.fft.rfft2(kernels.to(padded.dtype), s=size).conj()[:, None]
    return torch.fft.irfft2(torch.fft.rfft2(padded) * response, s=size)


# Cached, because a copy to a GPU at every batch would wait for all its queued work.
@lru_cache(maxsize=64)
def _matrix(length: int, scale: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    matrix = np.array(bicubic_matrix(length, 1 / scale))
    return torch.from_numpy(matrix).to(device, dtype)
