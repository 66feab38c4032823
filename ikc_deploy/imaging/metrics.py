"""PSNR and SSIM on luma, as the field reports them, and the likeness of two blur kernels."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError, MissingExtraError

MAX_PSNR: Final = 100.0
"""dB that equal images count as in means, and the most that any count as: infinity has no mean and
no JSON."""


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """BT.601 studio-range luma 16..235 of RGB `[H,W,3]` uint8, float64 (MATLAB's rgb2ycbcr)."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def psnr_y(image: NDArray[np.uint8], reference: NDArray[np.uint8], border: int) -> float:
    """PSNR in dB of luma with `border` pixels cropped on every side; infinite if equal."""
    ours, theirs = _cropped_luma(image, reference, border)
    error = float(np.mean((ours - theirs) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim_y(image: NDArray[np.uint8], reference: NDArray[np.uint8], border: int) -> float:
    """SSIM of luma, `border` pixels cropped, with the settings of Wang et al. (2004)."""
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise MissingExtraError("skimage", "evaluation", "SSIM") from error
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
    """PSNR in dB of a kernel `[k,k]` against the true one, whose largest value is the peak.

    Papers differ: FKP's have a `peak` of 1, which adds about 20 dB. At most `MAX_PSNR`, also
    for equal kernels.
    """
    difference = kernel.astype(np.float64) - truth
    error = float(np.mean(difference**2))
    peak = float(truth.max()) if peak is None else peak
    if error == 0:
        return MAX_PSNR
    return min(10 * math.log10(peak**2 / error), MAX_PSNR)


def _cropped_luma(
    image: NDArray[np.uint8], reference: NDArray[np.uint8], border: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.shape != reference.shape:
        raise InputError(
            f"images to compare must have the same shape, got {image.shape} and {reference.shape}"
        )
    inside = (slice(border, image.shape[0] - border), slice(border, image.shape[1] - border))
    return luma(image)[inside], luma(reference)[inside]
