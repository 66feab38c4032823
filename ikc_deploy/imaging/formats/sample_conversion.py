"""Conversion of samples of any depth and colour model to 8-bit grey or RGB."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BLOCK: Final = 2**20
"""Samples converted at once, to limit the memory for floating-point values."""


def to_8_bits(samples: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Scale unsigned samples of any shape from 0..`white` to 0..255 and round them to uint8."""
    levels = np.empty(samples.shape, np.uint8)
    source, target = np.ascontiguousarray(samples).reshape(-1), levels.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        target[part] = np.rint(source[part] * (255 / white))
    return levels


def high_byte(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return the high 8 bits of unsigned samples of 8 to 16 bits; fewer bits are scaled."""
    if bits < 8:
        return to_8_bits(samples, 2**bits - 1)
    return (samples >> (bits - 8)).astype(np.uint8)


def unpremultiplied(colour: NDArray[Any], alpha: NDArray[Any], white: int) -> NDArray[Any]:
    """Divide premultiplied colour `[H,W,C]` by its opacity `[H,W]`, whose range is 0..`white`.

    Colour under opacity 0 is returned unchanged.
    """
    divided = np.empty_like(colour)
    for row, (stored, seen) in enumerate(zip(colour, alpha, strict=True)):
        share = np.maximum(seen, 1)[:, None] / white
        divided[row] = np.minimum(np.rint(stored / share), white)
        divided[row][seen == 0] = stored[seen == 0]
    return divided


def rgb_of_cmyk(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert CMYK `[H,W,4]`, 255 for full ink, to RGB `[H,W,3]` as Pillow does."""
    return _converted("CMYK", inks)


def rgb_of_lab(lab: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert CIELAB (D50) `[H,W,3]`, L in 0 to 255, a and b as signed bytes, to sRGB `[H,W,3]`."""
    return _converted("LAB", lab)


def _converted(mode: str, samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = samples.shape[:2]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())
    return np.array(image.convert("RGB"))
