"""Synthetic images for comparisons, with the kinds of content that networks can get wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.imaging.resize import quantize


def structured_image(side: int, seed: int) -> NDArray[np.uint8]:
    """Return a synthetic image with edges, lines, gradients and texture at several scales.

    Noise alone would hide errors that only smooth areas and edges show.

    Args:
        side: Height and width in pixels.
        seed: Seed of the random generator; the same seed produces the same image.

    Returns:
        RGB `[side,side,3]`, uint8.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    image = np.stack([0.5 + 0.3 * x, 0.5 + 0.3 * y, 0.6 - 0.3 * x * y], axis=-1)
    for _ in range(12):
        angle, offset = random.uniform(0, np.pi), random.uniform(-0.2, 0.9)
        edge = np.cos(angle) * x + np.sin(angle) * y > offset
        image[edge] += random.uniform(-0.25, 0.25, 3)
    for cycles in (4, 9, 20):
        angle, phase = random.uniform(0, np.pi, 2)
        wave = np.sin(2 * np.pi * cycles * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        image += 0.06 * wave[..., None] * random.uniform(0.5, 1, 3)
    image += random.normal(0, 0.01, image.shape)
    return quantize(image * 255)
