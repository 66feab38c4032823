"""`Record`: what is measured on one image under one blur, in one way of upscaling it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["bicubic", "blind", "true kernel"]
"""Bicubic upscaling; a step of the loop; F given the true kernel, as far as the bundle's basis can
say it."""


@dataclass(frozen=True)
class Record:
    """One upscaled image, scored."""

    dataset: str
    image: str
    """File name."""
    blur: str
    """The blur's name."""
    sigma: float | None
    """The blur's sigma in HR pixels; None if it is no isotropic Gaussian."""
    method: Method
    step: int | None
    """Corrections so far, 0 for the predictor alone; None unless `method` is "blind"."""
    psnr_y: float
    """dB, at most `metrics.MAX_PSNR`."""
    ssim_y: float
    sigma_estimate: float | None = None
    """Sigma of the isotropic Gaussian nearest to the step's code; None unless "blind"."""
    kernel_psnr: float | None = None
    """dB of the decoded kernel against the true one (`metrics.kernel_psnr`); None unless "blind",
    or if the true kernel is larger than the bundle's."""

    @property
    def sigma_error(self) -> float | None:
        """|estimate - truth| in HR pixels, where there are both."""
        if self.sigma is None or self.sigma_estimate is None:
            return None
        return abs(self.sigma_estimate - self.sigma)
