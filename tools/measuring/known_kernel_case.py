"""A test of whether an offline method finds a known kernel: one image, degraded here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.imaging.metrics import kernel_psnr, psnr_y
from ikc_deploy.imaging.resize import quantize
from ikc_deploy.kernels import (
    degrade_fkp,
    fkp_size,
    mean_fkp_kernel,
    random_fkp_kernels,
)
from ikc_deploy.offline.forward_model import upscaled
from ikc_deploy.offline.optimize import FitResult


@dataclass(frozen=True, eq=False)
class KnownKernelCase:
    """An HR image and the kernel that it is degraded by."""

    hr: NDArray[np.uint8]
    """HR image `[H,W,3]`, sides multiples of the scale."""
    kernel: NDArray[np.float64]
    """True kernel `[k,k]` in the FKP convention."""
    scale: int
    """Scale factor."""

    @classmethod
    def cut(
        cls, image: NDArray[np.uint8], side: int | None, scale: int, seed: int
    ) -> KnownKernelCase:
        """Return the case of an image.

        Args:
            image: HR image `[H,W,3]` uint8.
            side: Side, in HR pixels, of the central square to use; None for the whole image.
            scale: Scale factor.
            seed: Seed of the random kernel.
        """
        height, width = (min(side or size, size) // scale * scale for size in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        hr = np.ascontiguousarray(image[top : top + height, left : left + width])
        (kernel,) = random_fkp_kernels(np.random.default_rng(seed), 1, scale)
        return cls(hr, kernel, scale)

    @property
    def lr(self) -> NDArray[np.uint8]:
        """LR image `[H/s,W/s,3]` uint8: blurred, sampled and rounded."""
        return quantize(degrade_fkp(self.hr, self.kernel, self.scale))

    def image_psnr(self, image: NDArray[np.uint8]) -> float:
        """Return the PSNR-Y in dB against the HR image."""
        return psnr_y(image, self.hr, self.scale)

    def kernel_psnr(self, kernel: NDArray[np.floating]) -> dict[str, float]:
        """Return the PSNR in dB against the true kernel, for both peaks (see `imaging.metrics`)."""
        return {
            "peak_1": kernel_psnr(kernel, self.kernel, 1.0),
            "own_peak": kernel_psnr(kernel, self.kernel),
        }


def delta(size: int, scale: int) -> NDArray[np.float64]:
    """Return the kernel `[size,size]` that is nearest to no blur.

    At even scales the centre of LR pixels lies between HR pixels: there the four pixels around it
    have equal weights.
    """
    profile = np.maximum(0, 1 - np.abs(np.arange(size) - (size - scale) / 2))
    return np.outer(profile, profile) / profile.sum() ** 2


def measure(case: KnownKernelCase, result: FitResult) -> dict[str, Any]:
    """Return the scores of a method's result, of bicubic upscaling, a delta and the mean kernel."""
    size = fkp_size(case.scale)
    kernels = {"delta": delta(size, case.scale), "mean kernel": mean_fkp_kernel(case.scale)}
    if result.kernel is not None:
        kernels["found"] = result.kernel
    return {
        "psnr_y": {
            "bicubic": case.image_psnr(upscaled(case.lr, case.scale, "fkp")),
            "found": case.image_psnr(result.image),
        },
        "kernel_psnr": {name: case.kernel_psnr(kernel) for name, kernel in kernels.items()},
        "true_kernel": case.kernel.round(6).tolist(),
        "found_kernel": None if result.kernel is None else result.kernel.round(6).tolist(),
    }
