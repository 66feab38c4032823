"""Resizing, and rounding to 8 bits.

`resize_bicubic` computes what MATLAB's imresize does, the usual definition of LR images and
baselines: Keys' cubic kernel with a = -0.5 (Keys, 1981), widened when downscaling (antialiasing),
and a symmetric border. It is separable and linear, so it is two matrix products.

`resized` resizes 8-bit images with Pillow: faster, with another border.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.kernels.bicubic import cubic


@lru_cache(maxsize=64)
def bicubic_matrix(length: int, factor: float) -> NDArray[np.float64]:
    """Return the matrix that resizes one axis by `factor`; it is cached and read-only.

    Args:
        length: Number of samples of the axis.
        factor: Scale factor, above 0; below 1 to downscale.

    Returns:
        A float64 matrix `[round(length * factor), length]`, whose rows add up to 1.
    """
    outputs = round(length * factor)
    stretch = min(factor, 1.0)
    taps = int(np.ceil(4.0 / stretch)) + 2
    centres = (np.arange(outputs) + 0.5) / factor - 0.5
    first = np.floor(centres - 2.0 / stretch).astype(int)
    positions = first[:, None] + np.arange(taps)
    weights = cubic(stretch * (centres[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    # Symmetric extension: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
    folded = np.mod(positions, 2 * length)
    folded = np.where(folded < length, folded, 2 * length - 1 - folded)
    matrix = np.zeros((outputs, length))
    np.add.at(matrix, (np.arange(outputs)[:, None], folded), weights)
    matrix.setflags(write=False)
    return matrix


def resize_bicubic(
    image: NDArray[np.floating] | NDArray[np.uint8], factor: float
) -> NDArray[np.float64]:
    """Resize an image bicubically, without clipping.

    Args:
        image: Image `[H,W,C]`, of any range.
        factor: Scale factor, above 0; below 1 to downscale.

    Returns:
        A new image `[round(H*factor), round(W*factor), C]`, float64, in the range of `image` except
        for overshoot at edges.
    """
    rows = bicubic_matrix(image.shape[0], factor)
    columns = bicubic_matrix(image.shape[1], factor)
    half = np.tensordot(rows, image.astype(np.float64), axes=(1, 0))
    return np.tensordot(half, columns, axes=(1, 1)).transpose(0, 2, 1)


def upscale_bicubic(lr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Upscale `[H,W,3]` uint8 bicubically to `[s*H,s*W,3]` uint8; the baseline of comparisons."""
    return quantize(resize_bicubic(lr, scale))


def quantize(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round `image` to the nearest integers and clip to 0..255; return uint8 of the same shape."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def resized(
    image: NDArray[np.uint8], height: int, width: int, *, enlarge: bool = False
) -> NDArray[np.uint8]:
    """Resize an image with Pillow.

    Args:
        image: Image `[H,W,3]` or `[H,W]`, uint8.
        height: Height of the result.
        width: Width of the result.
        enlarge: Whether to use Keys' bicubic kernel (a = -0.5), the plain upscaling of
            comparisons, instead of Lanczos with 3 lobes. Both are widened when they downscale, so
            they do not alias.

    Returns:
        The resized image; `image` itself if it has this size.
    """
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    kernel = Image.Resampling.BICUBIC if enlarge else Image.Resampling.LANCZOS
    return np.array(Image.fromarray(image).resize((width, height), kernel))
