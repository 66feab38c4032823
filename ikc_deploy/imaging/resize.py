"""Bicubic resizing as MATLAB's imresize does it, the usual definition of LR images and baselines.

The kernel is Keys' cubic with a = -0.5 (Keys, 1981), widened when downscaling (antialiasing); the
border is symmetric. Resizing is separable and linear, so it is computed as two matrix products.
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
