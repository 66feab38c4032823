"""Degradations that are not convolutions: filters in place of a blur in `ikc-eval --degradation`.

An edge-preserving filter smooths some parts of an image and not others, so no blur kernel produces
its result: networks trained on blur kernels have not seen such degradations (the paper of IKE
shows its results on them). Each filter maps HR images `[H,W,3]` uint8 to float64 of the same shape
in 0..255; each is about as strong as a common blur at its scale. Borders are reflected, as for
blurs. The median needs scipy, a dependency of scikit-image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import needs_extra

Image = NDArray[np.uint8]
Smoothed = NDArray[np.float64]

FilterName = Literal["median", "bilateral", "anisotropic-diffusion"]

BILATERAL_LEVELS: Final = 25.0
"""Standard deviation of the bilateral filter in colour distance, in 8-bit levels."""

DIFFUSION_LEVELS: Final = 15.0
"""Difference of neighbours, in 8-bit levels, at which the conduction is 1/e."""
DIFFUSION_STEP: Final = 0.2
"""Time step of the diffusion; above 1/4 the explicit scheme is unstable."""


def median(hr: Image, scale: int) -> Smoothed:
    """Return the median of each colour over 3x3 pixels at x2 and x3, 5x5 at x4.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    with needs_extra("evaluation", "the median filter"):
        from scipy.ndimage import median_filter
    side = scale | 1
    return median_filter(hr, (side, side, 1), mode="mirror").astype(np.float64)


def bilateral(hr: Image, scale: int) -> Smoothed:
    """Apply the bilateral filter (Tomasi and Manduchi, 1998).

    A pixel becomes a mean with Gaussian weights of the distance (standard deviation `scale / 2`
    pixels) and of the RGB distance (`BILATERAL_LEVELS`), over pixels up to three standard
    deviations away in each direction.
    """
    # Not scikit-image's, whose table of weights by distance is a row and a column too wide (0.26):
    # the weight of the pixel itself is far too small.
    image, deviation = hr.astype(np.float64), scale / 2
    reach = math.ceil(3 * deviation)
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    total, weights = np.zeros_like(image), np.zeros((*image.shape[:2], 1))
    height, width = image.shape[:2]
    for y, x in product(range(2 * reach + 1), repeat=2):
        neighbour = padded[y : y + height, x : x + width]
        near = ((y - reach) ** 2 + (x - reach) ** 2) / deviation**2
        alike = np.square(neighbour - image).sum(axis=2, keepdims=True) / BILATERAL_LEVELS**2
        weight = np.exp(-0.5 * (near + alike))
        total += weight * neighbour
        weights += weight
    return total / weights


def diffuse(hr: Image, scale: int) -> Smoothed:
    """Apply anisotropic diffusion to each colour (Perona and Malik, 1990).

    The conduction is exp(-(d / DIFFUSION_LEVELS)^2) where neighbours differ by d. Where there is no
    edge, the result is a Gaussian blur of about `scale / 2` pixels: time is half its variance.
    """
    image = hr.astype(np.float64)
    for _ in range(round((scale / 2) ** 2 / 2 / DIFFUSION_STEP)):
        flow = np.zeros_like(image)
        for axis in (0, 1):
            difference = np.diff(image, axis=axis)
            current = difference * np.exp(-((difference / DIFFUSION_LEVELS) ** 2))
            before, after = [(0, 0)] * 3, [(0, 0)] * 3
            before[axis], after[axis] = (1, 0), (0, 1)
            # What a pixel gains, its neighbour loses; nothing crosses the border.
            flow += np.pad(current, after) - np.pad(current, before)
        image += DIFFUSION_STEP * flow
    return image


FILTERS: Final[dict[FilterName, Callable[[Image, int], Smoothed]]] = {
    "median": median,
    "bilateral": bilateral,
    "anisotropic-diffusion": diffuse,
}
