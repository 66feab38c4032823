"""`Picture`: what an image file shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError

MAX_PIXELS: Final = 2**29 // 3
"""Pixels of the largest picture that is read unasked, 179 million: half a GiB of RGB. A file of a
few kilobytes can hold a picture that exhausts a machine's memory."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What an image file shows, upright."""

    rgb: NDArray[np.uint8]
    """`[H,W,3]`; three equal channels if `grey`."""
    alpha: NDArray[np.uint8] | None = None
    """Opacity `[H,W]`, 255 opaque; None if the file has none. `rgb` is not multiplied by it."""
    grey: bool = False
    """Stored in one channel."""
    icc_profile: bytes | None = None
    """The colour profile, byte for byte."""
    bits: int = 8
    """Bits of each sample in the file that it was read from."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def check_pixels(width: int, height: int, most: int | None) -> None:
    """Raise `InputError` for a picture without pixels, or of more than `most` (None: any).

    The message is what is to be said after the file's name.
    """
    if width < 1 or height < 1:
        raise InputError(f"has {width}x{height} pixels")
    if most is not None and width * height > most:
        raise InputError(
            f"has {width}x{height} pixels, {width * height / 1e6:.0f} million, and the limit "
            f"is {most / 1e6:.0f} million, as such files can be made to exhaust memory; if it is "
            "a real picture, raise the limit (--max-pixels, max_pixels)"
        )
