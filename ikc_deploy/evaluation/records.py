"""`Record`: the scores of one image under one blur, upscaled by one method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["bicubic", "blind", "true kernel"]
"""Bicubic upscaling; a step of the blind loop; F given the projection of the true kernel onto the
bundle's basis."""


@dataclass(frozen=True)
class Record:
    """The scores of one upscaled image."""

    dataset: str
    """Name of the dataset."""
    image: str
    """File name of the HR image."""
    blur: str
    """Name of the blur."""
    sigma: float | None
    """Sigma of the blur in HR pixels; None if it is not an isotropic Gaussian."""
    method: Method
    """Method of upscaling."""
    step: int | None
    """Number of corrections so far, 0 for the predictor alone; None unless `method` is "blind"."""
    psnr_y: float
    """PSNR of luma in dB, at most `metrics.MAX_PSNR`."""
    ssim_y: float
    """SSIM of luma, at most 1."""
    sigma_estimate: float | None = None
    """Sigma, in HR pixels, of the isotropic Gaussian nearest to the step's kernel code; None unless
    `method` is "blind"."""
    kernel_psnr: float | None = None
    """PSNR, in dB, of the decoded kernel against the true one (`metrics.kernel_psnr`); None unless
    `method` is "blind", or if the true kernel is larger than the bundle's."""

    @property
    def sigma_error(self) -> float | None:
        """Absolute error of the estimated sigma in HR pixels; None if either sigma is unknown."""
        if self.sigma is None or self.sigma_estimate is None:
            return None
        return abs(self.sigma_estimate - self.sigma)
