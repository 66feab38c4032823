"""Bicubic resizing as MATLAB's imresize does it: the field's definition of LR images and baselines.

Keys' cubic with a = -0.5; widened by the factor when shrinking (antialiasing); symmetric border.
Resizing is separable and linear, so it is two matrix products.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.kernels.bicubic import cubic


@lru_cache(maxsize=64)
def bicubic_matrix(length: int, factor: float) -> NDArray[np.float64]:
    """The matrix `[round(length * factor), length]` that resizes one axis by `factor`."""
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
    """Resize `[H, W, C]` (any range) to `[round(H*factor), round(W*factor), C]`, not clipped."""
    rows = bicubic_matrix(image.shape[0], factor)
    columns = bicubic_matrix(image.shape[1], factor)
    half = np.tensordot(rows, image.astype(np.float64), axes=(1, 0))
    return np.tensordot(half, columns, axes=(1, 1)).transpose(0, 2, 1)
