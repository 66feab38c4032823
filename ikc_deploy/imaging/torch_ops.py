"""Resizing, degradation, luma, PSNR and SSIM of batches in torch, on any device, differentiable.

They compute what `imaging.resize`, `imaging.degrade`, `imaging.metrics` and
`kernels.conventions` compute in numpy. It is the only module of `imaging` that needs torch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.imaging.metrics import LUMA_WEIGHTS, MAX_PSNR, SSIM_WINDOW
from ikc_deploy.imaging.resize import bicubic_matrix

LEVELS: Final = 255
"""Value of white in 8 bits."""

_SIGMA: Final = 1.5
_C1: Final = 0.01**2
_C2: Final = 0.03**2


def to_tensor(image: NDArray[np.uint8], device: str) -> Tensor:
    """Convert RGB `[H,W,3]` uint8 to float32 `[1,3,H,W]` in [0,1] on `device`."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(planes).to(device).float()[None] / LEVELS


def to_image(images: Tensor) -> NDArray[np.uint8]:
    """Convert `[1,3,H,W]` in [0,1] to RGB `[H,W,3]` uint8, clipped and rounded."""
    levels = (LEVELS * images.detach()).round().clamp(0, LEVELS)
    return levels[0].permute(1, 2, 0).to(torch.uint8).contiguous().cpu().numpy()


def resize(images: Tensor, factor: float) -> Tensor:
    """Return images `[N,C,H,W]` resized bicubically by `factor`, antialiased (imresize).

    Sides are rounded to whole numbers; the border is symmetric.
    """
    rows = _matrix(images.shape[-2], factor, images.device, images.dtype)
    columns = _matrix(images.shape[-1], factor, images.device, images.dtype)
    return rows @ images @ columns.T


def correlate(images: Tensor, kernels: Tensor, stride: int = 1) -> Tensor:
    """Correlate images with kernels where they fit.

    Args:
        images: Images `[N,C,H,W]`.
        kernels: Kernels `[N,k,k]`, one for each image.
        stride: Distance of the positions that are computed, in pixels.

    Returns:
        Images `[N,C,(H-k)//stride+1,(W-k)//stride+1]`.
    """
    # One group per image: its channels are the batch, its kernel the only filter.
    weights = kernels[:, None].to(images.dtype)
    planes = images.transpose(0, 1)
    return F.conv2d(planes, weights, stride=stride, groups=len(images)).transpose(0, 1)


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate images `[N,C,H,W]` with kernels `[N,k,k]`, one per image; reflect the border."""
    padded = _padded(images, kernels, "reflect")
    if images.is_cuda:
        # cuDNN has no fast kernel for large filters with one group per image.
        return correlate_by_fft(padded, kernels)[..., : images.shape[-2], : images.shape[-1]]
    return correlate(padded, kernels)


def degrade(hr: Tensor, kernels: Tensor, scale: int) -> Tensor:
    """Return LR images of HR images in the IKC convention: blur, then bicubic downscaling.

    Args:
        hr: HR images `[N,3,H,W]` in [0,1]; H and W are multiples of `scale`.
        kernels: Blur kernels `[N,k,k]`, odd k, sum 1, on the device of `hr`.
        scale: SR factor.

    Returns:
        LR images `[N,3,H/s,W/s]` of the dtype of `hr`, not rounded.
    """
    return resize(blur(hr, kernels), 1 / scale)


def degrade_circular(hr: Tensor, kernels: Tensor, scale: int) -> Tensor:
    """Return LR images of HR images in the FKP convention: circular blur, every `scale`-th pixel.

    Args:
        hr: HR images `[N,3,H,W]` in [0,1], at least k // 2 pixels on each side.
        kernels: Blur kernels `[N,k,k]`, odd k, sum 1, on the device of `hr`.
        scale: SR factor.

    Returns:
        LR images `[N,3,H/s,W/s]`, not rounded.
    """
    return correlate(_padded(hr, kernels, "circular"), kernels, scale)


def quantized(images: Tensor) -> Tensor:
    """Return images in [0,1] rounded to 8-bit levels, as in files."""
    return (images * LEVELS).round().clamp(0, LEVELS) / LEVELS


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


def gaussian_filter(images: Tensor, sigma: float, reach: int) -> Tensor:
    """Filter each channel with a Gaussian where it fits.

    Args:
        images: Images `[N,C,H,W]`.
        sigma: Standard deviation in pixels.
        reach: Number of pixels from the middle of the filter to its edge.

    Returns:
        Images `[N,C,H-2*reach,W-2*reach]`.
    """
    channels = images.shape[1]
    profile = _gaussian(sigma, reach, images.device, images.dtype)
    rows = profile.view(1, 1, -1, 1).expand(channels, -1, -1, -1)
    columns = profile.view(1, 1, 1, -1).expand(channels, -1, -1, -1)
    return F.conv2d(F.conv2d(images, rows, groups=channels), columns, groups=channels)


def luma(images: Tensor) -> Tensor:
    """Return the BT.601 luma `[N,1,H,W]` of RGB, in the range of the images (full range).

    Grey images `[N,1,H,W]` are returned unchanged.
    """
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(LUMA_WEIGHTS, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def psnr(images: Tensor, expected: Tensor) -> Tensor:
    """Return the PSNR in dB of each image, computed in float64, at most `metrics.MAX_PSNR`.

    Args:
        images: `[N,C,H,W]` in [0,1].
        expected: `[N,C,H,W]` in [0,1].

    Returns:
        Values `[N]`, float64.
    """
    error = (images - expected).double().square().mean(dim=(1, 2, 3))
    return (-10 * torch.log10(error)).clamp(max=MAX_PSNR)


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Return the mean structural similarity of two images (Wang et al. 2004).

    Gaussian windows of 11 pixels, only where they fit; sides must be at least that long.

    Args:
        image: `[N,C,H,W]` in [0,1].
        reference: `[N,C,H,W]` in [0,1].

    Returns:
        A differentiable scalar, at most 1.
    """

    def local(values: Tensor) -> Tensor:
        return gaussian_filter(values, _SIGMA, SSIM_WINDOW // 2)

    mean_a, mean_b = local(image), local(reference)
    variance_a = local(image * image) - mean_a**2
    variance_b = local(reference * reference) - mean_b**2
    covariance = local(image * reference) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return (luminance * structure).mean()


def _padded(images: Tensor, kernels: Tensor, border: str) -> Tensor:
    reach = kernels.shape[-1] // 2
    return F.pad(images, (reach, reach, reach, reach), mode=border)


# Cached, because a copy to a GPU at every batch would wait for all its queued work.
@lru_cache(maxsize=8)
def _gaussian(sigma: float, reach: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).to(device, dtype)


@lru_cache(maxsize=64)
def _matrix(length: int, factor: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    # A copy: the numpy matrix is cached too and must not be written to.
    return torch.from_numpy(np.array(bicubic_matrix(length, factor))).to(device, dtype)
