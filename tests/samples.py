"""Small networks and images that several test modules use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ikc_deploy.kernels import CODE_SIZE, LEVELS, SIGMA_RANGES
from ikc_deploy.networks.architecture import Architecture, Design

DESIGNS: tuple[Design, ...] = ("reference", "compact", "film")


def small_architecture(design: Design, scale: int = 4) -> Architecture:
    """The smallest networks that still have every part."""
    levels = len(LEVELS) if design == "film" else 0
    code_size = CODE_SIZE + levels
    return Architecture(
        "small",
        scale,
        design,
        4,
        2,
        8,
        SIGMA_RANGES[scale],
        code_size,
        levels=levels,
        groups=2 if design == "dan2" else 1,
    )


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """An image `[height,width,3]` with what photographs have: shading, texture, hard edges."""
    random = np.random.default_rng(seed)
    grey = random.standard_normal((height, width, 1))
    texture = sum(s * ndimage.gaussian_filter(grey, (s, s, 0)) for s in (0.7, 2.0, 6.0))
    tint = 6 * ndimage.gaussian_filter(random.standard_normal((height, width, 3)), (6, 6, 0))
    image = 128 + 40 * (np.asarray(texture) + tint)
    top, left = height // 4, width // 3
    image[top : top + height // 2, left : left + width // 2] += (90, -70, 50)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
