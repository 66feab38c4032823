"""The bicubic filter that shrinks pictures: a part of the blur of every LR picture.

Keys' cubic with a = -0.5, widened by the factor when shrinking: MATLAB's imresize.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic at distances x, any shape."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def shrinking_taps(scale: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Shrinking by a whole number: LR pixel i is the sum of weight * HR pixel (scale * i + offset).

    Returns the offsets and the weights (sum 1) along one axis, away from the border.
    """
    centre = (scale - 1) / 2
    reach = 2 * scale
    offsets = np.arange(-reach, reach + scale)
    weights = cubic((offsets - centre) / scale)
    used = np.flatnonzero(weights)
    return offsets[used], weights[used] / weights.sum()
