"""`Picture`: the decoded content of an image file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.metadata import NO_METADATA, Metadata

MAX_PIXELS: Final = 2**29 // 3
"""Default limit of pixels per image, 179 million: half a GiB of RGB. Without a limit, a file of a
few kilobytes can hold an image that exhausts the memory of a machine."""


@dataclass(frozen=True, eq=False)
class Picture:
    """The decoded content of an image file, upright."""

    rgb: NDArray[np.uint8]
    """Colour `[H,W,3]`; three equal channels if `grey`."""
    alpha: NDArray[np.uint8] | None = None
    """Opacity `[H,W]`, 255 for opaque; None if the file has none. `rgb` is not premultiplied."""
    grey: bool = False
    """Whether the file stores one channel."""
    icc_profile: bytes | None = None
    """ICC colour profile, unchanged; None for none."""
    bits: int = 8
    """Bits per sample in the source file."""
    metadata: Metadata = NO_METADATA
    """Metadata of the source file, except for the ICC profile."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def check_pixels(width: int, height: int, most: int | None) -> None:
    """Raise `InputError` for an image without pixels, or with more than `most` (None: no limit).

    The message continues a sentence that begins with the name of the file.
    """
    if width < 1 or height < 1:
        raise InputError(f"has {width}x{height} pixels")
    if most is not None and width * height > most:
        raise InputError(
            f"has {width}x{height} pixels, {width * height / 1e6:.0f} million, and the limit "
            f"is {most / 1e6:.0f} million, because larger files may exhaust memory; if you trust "
            "the file, raise the limit (--max-pixels, max_pixels)"
        )
