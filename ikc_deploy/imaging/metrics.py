"""PSNR and SSIM on luma, as the literature reports them, and PSNR of blur kernels."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.errors import InputError, needs_extra

LUMA_WEIGHTS: Final = (0.299, 0.587, 0.114)
"""Weights of R, G and B in luma (BT.601)."""

MAX_PSNR: Final = 100.0
"""Largest PSNR in dB, also that of equal images: infinity has no finite mean and cannot be written
as JSON."""

SSIM_WINDOW: Final = 11
"""Side in pixels of the window of SSIM, and of the smallest image that it can measure."""


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the BT.601 luma of an RGB image, in the studio range 16..235 (MATLAB's rgb2ycbcr).

    Args:
        image: RGB `[H,W,3]`, uint8.

    Returns:
        Luma `[H,W]`, float64, not rounded.
    """
    weighted: NDArray[np.float64] = image.astype(np.float64) @ np.array(LUMA_WEIGHTS)
    return 16 + 219 / 255 * weighted


def psnr_y(image: NDArray[np.uint8], reference: NDArray[np.uint8], border: int) -> float:
    """Return the PSNR of luma in dB, at most `MAX_PSNR`.

    Args:
        image: RGB `[H,W,3]`, uint8.
        reference: RGB of the same shape, uint8.
        border: Number of pixels that are cropped on every side.

    Raises:
        InputError: The shapes differ.
    """
    ours, theirs = _cropped_luma(image, reference, border)
    return psnr(ours, theirs, 255, MAX_PSNR)


def ssim_y(image: NDArray[np.uint8], reference: NDArray[np.uint8], border: int) -> float:
    """Return the SSIM of luma, with the settings of Wang et al. (2004).

    Args:
        image: RGB `[H,W,3]`, uint8.
        reference: RGB of the same shape, uint8.
        border: Number of pixels that are cropped on every side.

    Raises:
        InputError: The shapes differ.
        MissingExtraError: scikit-image is not installed.
    """
    with needs_extra("evaluation", "SSIM"):
        from skimage.metrics import structural_similarity
    ours, theirs = _cropped_luma(image, reference, border)
    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        ours,
        theirs,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(similarity)


def kernel_psnr(
    kernel: NDArray[np.floating], truth: NDArray[np.floating], peak: float | None = None
) -> float:
    """Return the PSNR in dB of a blur kernel against the true one, at most `MAX_PSNR`.

    Args:
        kernel: Blur kernel `[k,k]`.
        truth: The true blur kernel `[k,k]`.
        peak: Peak value; None for the largest value of `truth`. The FKP paper uses 1, which adds
            about 20 dB.
    """
    return psnr(kernel, truth, float(truth.max()) if peak is None else peak, MAX_PSNR)


def _cropped_luma(
    image: NDArray[np.uint8], reference: NDArray[np.uint8], border: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.shape != reference.shape:
        raise InputError(
            f"images to compare must have the same shape, got {image.shape} and {reference.shape}"
        )
    inside = (slice(border, image.shape[0] - border), slice(border, image.shape[1] - border))
    return luma(image)[inside], luma(reference)[inside]
