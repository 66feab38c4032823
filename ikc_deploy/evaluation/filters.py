"""Degradations that are no convolution: what takes the place of a blur in `ikc-eval --degradation`.

An edge-preserving filter smooths a picture here and not there, so that no kernel gives its result:
nothing that was trained on kernels has seen the like (IKE shows itself on these). Each takes HR
images `[H,W,3]` uint8 to float64 of the same shape in 0..255, each as strong as blur commonly is
at its scale. Borders are reflected, as for blurs. Median and bilateral need scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import MissingExtraError

Image = NDArray[np.uint8]
Smoothed = NDArray[np.float64]

FilterName = Literal["median", "bilateral", "anisotropic-diffusion"]

BILATERAL_LEVELS: Final = 25.0
"""Standard deviation of the bilateral filter over colour distance, in 8-bit levels."""

DIFFUSION_LEVELS: Final = 15.0
"""Difference of neighbours, in 8-bit levels, at which diffusion has fallen to 1/e."""
DIFFUSION_STEP: Final = 0.2
"""Of time; above 1/4 the explicit scheme is unstable."""


def median(hr: Image, scale: int) -> Smoothed:
    """The median of each colour over 3x3 pixels at x2 and x3, 5x5 at x4."""
    try:
        from scipy.ndimage import median_filter
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "evaluation", "the median filter") from error
    side = scale | 1
    return median_filter(hr, (side, side, 1), mode="mirror").astype(np.float64)


def bilateral(hr: Image, scale: int) -> Smoothed:
    """Means weighted by distance, `scale / 2` pixels, and by RGB distance, `BILATERAL_LEVELS`.

    Tomasi and Manduchi (1998).
    """
    try:
        from skimage.restoration import denoise_bilateral
    except ModuleNotFoundError as error:
        raise MissingExtraError("skimage", "evaluation", "the bilateral filter") from error
    found = denoise_bilateral(  # type: ignore[no-untyped-call]
        hr / 255,
        sigma_color=BILATERAL_LEVELS / 255,
        sigma_spatial=scale / 2,
        mode="reflect",
        channel_axis=-1,
    )
    return np.asarray(255 * found, np.float64)


def diffuse(hr: Image, scale: int) -> Smoothed:
    """Anisotropic diffusion of each colour (Perona and Malik, 1990): heat that edges hold up.

    Conduction is exp(-(d / DIFFUSION_LEVELS)^2) where neighbours differ by d. Where there is no
    edge, it is a Gaussian blur of about `scale / 2` pixels: time is half its variance.
    """
    image = hr.astype(np.float64)
    for _ in range(round((scale / 2) ** 2 / 2 / DIFFUSION_STEP)):
        flow = np.zeros_like(image)
        for axis in (0, 1):
            difference = np.diff(image, axis=axis)
            current = difference * np.exp(-((difference / DIFFUSION_LEVELS) ** 2))
            before, after = [(0, 0)] * 3, [(0, 0)] * 3
            before[axis], after[axis] = (1, 0), (0, 1)
            # What a pixel gets, its neighbour loses; nothing crosses the border.
            flow += np.pad(current, after) - np.pad(current, before)
        image += DIFFUSION_STEP * flow
    return image


FILTERS: Final[dict[FilterName, Callable[[Image, int], Smoothed]]] = {
    "median": median,
    "bilateral": bilateral,
    "anisotropic-diffusion": diffuse,
}
