"""The bicubic filter that downscales images: a part of the blur of every LR image.

Keys' cubic with a = -0.5, widened by the scale factor when downscaling, as in MATLAB's imresize.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Keys' cubic (a = -0.5) at distances x, an array of any shape."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def downscaling_taps(scale: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the offsets and weights that downscale one axis by the whole number `scale`.

    LR pixel i is the sum over offsets of weight * HR pixel (scale * i + offset).

    Args:
        scale: Scale factor, at least 1.

    Returns:
        The offsets in HR pixels and the weights (sum 1), valid away from the border.
    """
    centre = (scale - 1) / 2
    reach = 2 * scale
    offsets = np.arange(-reach, reach + scale)
    weights = cubic((offsets - centre) / scale)
    used = np.flatnonzero(weights)
    return offsets[used], weights[used] / weights.sum()
