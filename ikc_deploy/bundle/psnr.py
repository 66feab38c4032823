"""The PSNR of two arrays: of images in every gate and measurement, and of blur kernels."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_DB: Final = 150.0
"""Largest PSNR of gates, also that of equal arrays: JSON has no infinity."""


def psnr(
    image: NDArray[Any], expected: NDArray[Any], peak: float = 1.0, limit: float = MAX_DB
) -> float:
    """Return the PSNR in dB, computed in float64.

    Args:
        image: Array of any shape.
        expected: Array of the same shape.
        peak: Largest value: 1, or 255 for 8-bit levels.
        limit: Largest result, also that of equal arrays.

    Returns:
        The PSNR; minus infinity if a value is not finite, so that no comparison takes it for good.
    """
    error = float(np.mean((image.astype(np.float64) - expected.astype(np.float64)) ** 2))
    if not math.isfinite(error):
        return -math.inf
    return limit if error == 0 else min(limit, 10 * math.log10(peak**2 / error))
