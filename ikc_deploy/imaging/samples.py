"""Samples of any depth and colour model to 8-bit grey or RGB."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BLOCK: Final = 2**20
"""Samples that are computed with at once, so that floating-point numbers take little memory."""


def rounded(samples: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Unsigned samples of any shape, `white` the largest, as levels 0 to 255."""
    levels = np.empty(samples.shape, np.uint8)
    source, target = np.ascontiguousarray(samples).reshape(-1), levels.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        target[part] = np.rint(source[part] * (255 / white))
    return levels


def high_byte(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Unsigned samples of 8 to 16 bits without their low bits; fewer bits are rounded."""
    if bits < 8:
        return rounded(samples, 2**bits - 1)
    return (samples >> (bits - 8)).astype(np.uint8)


def not_premultiplied(colour: NDArray[Any], alpha: NDArray[Any], white: int) -> NDArray[Any]:
    """`colour` `[H,W,C]` divided by its opacity `[H,W]`, whose largest value is `white`.

    Where nothing is seen, it is as it is stored.
    """
    divided = np.empty_like(colour)
    for row, (stored, seen) in enumerate(zip(colour, alpha, strict=True)):
        share = np.maximum(seen, 1)[:, None] / white
        divided[row] = np.minimum(np.rint(stored / share), white)
        divided[row][seen == 0] = stored[seen == 0]
    return divided


def rgb_of_cmyk(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB `[H,W,3]` of inks `[H,W,4]`, 255 full; as Pillow has it, without profiles."""
    return _converted("CMYK", inks)


def rgb_of_lab(lab: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """sRGB `[H,W,3]` of CIELAB (D50) `[H,W,3]`: L in 0 to 255, a and b as signed bytes."""
    return _converted("LAB", lab)


def _converted(mode: str, samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = samples.shape[:2]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())
    return np.array(image.convert("RGB"))
