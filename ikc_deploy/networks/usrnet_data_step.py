"""USRNet's data step: the image that agrees better with the LR image under a blur kernel.

The degradation is that of the FKP convention: lr = A x, where A is circular blur and s-fold
sampling. The data step minimises |A x' - lr|^2 + alpha |x' - x|^2. With the Woodbury identity,

    x' = x + A^T (A A^T + alpha)^-1 (lr - A x),

and A A^T is a circular convolution of LR images. So the paper's Fourier transforms of SR images
become those of the s^2 phases of x, each of LR size, and there is no division by a small alpha.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Spectrum = tuple[Tensor, Tensor]
"""Real and imaginary part of the half-plane transform of planes: `[...,h,w//2+1]` each."""


class Fft(nn.Module):
    """The Fourier transform of real planes; an export replaces it by constant matrices."""

    def forward(self, planes: Tensor) -> Spectrum:
        """Return the spectrum of planes `[...,h,w]` float32."""
        spectrum = torch.fft.rfft2(planes)
        return spectrum.real, spectrum.imag

    def inverse(self, spectrum: Spectrum, size: tuple[int, int]) -> Tensor:
        """Return planes `[...,h,w]` of `size`, (h, w), from their spectrum."""
        return torch.fft.irfft2(torch.complex(*spectrum), s=size)


class DataStep:
    """The data step for given LR images and kernels, in float32 (Woodbury form).

    Args:
        fourier: Transform: `Fft`, or the constant matrices of an export.
        lr: LR images `[N,3,h,w]` in [0,1].
        kernel: Kernels `[N,k,k]`, sum 1.
        scale: Scale factor.
    """

    def __init__(self, fourier: Any, lr: Tensor, kernel: Tensor, scale: int) -> None:
        self._fourier, self._scale = fourier, scale
        self._size = (lr.shape[-2], lr.shape[-1])
        # A correlates, hence the conjugate.
        real, imaginary = fourier(_phases(_placed(kernel, lr, scale)[:, None], scale))
        self._blur: Spectrum = (real, -imaginary)
        self._power = (real**2 + imaginary**2).sum(dim=2)
        self._wanted: Spectrum = fourier(lr)

    def __call__(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Return `x` `[N,3,sh,sw]` moved towards agreement with `lr`, less for larger `alpha`."""
        real, imaginary = self._fourier(_phases(x, self._scale))
        blur_real, blur_imaginary = self._blur
        held = self._power + alpha[:, None, None, None]
        missing_real = (
            self._wanted[0] - (blur_real * real - blur_imaginary * imaginary).sum(dim=2)
        ) / held
        missing_imaginary = (
            self._wanted[1] - (blur_real * imaginary + blur_imaginary * real).sum(dim=2)
        ) / held
        missing_real, missing_imaginary = missing_real[:, :, None], missing_imaginary[:, :, None]
        change = self._fourier.inverse(
            (
                blur_real * missing_real + blur_imaginary * missing_imaginary,
                blur_real * missing_imaginary - blur_imaginary * missing_real,
            ),
            self._size,
        )
        return x + _interleaved(change, self._scale)


def _phases(image: Tensor, scale: int) -> Tensor:
    """Return the s^2 images `[N,C,s*s,h,w]` of every s-th pixel of `[N,C,sh,sw]`."""
    count, channels, height, width = image.shape
    blocks = image.reshape(count, channels, height // scale, scale, width // scale, scale)
    return blocks.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)


def _interleaved(phases: Tensor, scale: int) -> Tensor:
    """Return the image of its phases; the inverse of `_phases`."""
    count, channels, _, height, width = phases.shape
    blocks = phases.reshape(count, channels, scale, scale, height, width)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(count, channels, height * scale, width * scale)


def _placed(kernel: Tensor, lr: Tensor, scale: int) -> Tensor:
    """Return kernels `[N,k,k]` centred on the corner of SR planes `[N,sh,sw]`, wrapped around."""
    taps = torch.arange(kernel.shape[-1], device=kernel.device) - kernel.shape[-1] // 2
    rows, columns = (
        (taps % length == torch.arange(length, device=kernel.device)[:, None]).to(kernel.dtype)
        for length in (scale * lr.shape[-2], scale * lr.shape[-1])
    )
    return rows @ kernel @ columns.T
