"""`SplitImage`: an image file split into pixels and metadata.

No metadata can then prevent the decoding of the pixels: PNG chunks, JPEG segments and TIFF fields
that do not describe the pixels (texts of any size, damaged EXIF, data of vendors) are removed from
the data that a decoder gets. `png_chunks`, `jpeg_segments` and `tiff_fields` do it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.imaging.picture import NO_METADATA, Metadata

_ORIENTATION: Final = 0x0112
MAX_PROFILE: Final = 8 * 2**20
"""Maximum size in bytes. Printer profiles have up to 4 MiB; JPEG cannot hold more than 15."""


@dataclass(frozen=True)
class SplitImage:
    """An image file split into pixels and metadata."""

    pixels: bytes
    """Content of a file of the same format, without metadata."""
    orientation: int = 1
    """EXIF orientation, 1 to 8; 1 if it is missing or damaged."""
    icc_profile: bytes | None = None
    """ICC colour profile; None if it is missing or damaged."""
    metadata: Metadata = NO_METADATA
    """All other metadata."""
    bits: int = 8
    """Bits per sample where the decoder states fewer."""


def orientation_of(exif: bytes | None) -> int:
    """Return the orientation in EXIF data, 1 to 8; 1 if it is missing or damaged."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        found = tags.get(_ORIENTATION)
    except Exception:  # Pillow raises half a dozen types for damaged EXIF
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def usable_profile(profile: object) -> bytes | None:
    """Return `profile` if it is bytes of a size that every format can hold, otherwise None."""
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE:
        return profile
    return None


def apply_orientation(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rotate and flip `[H,W,...]` as EXIF `orientation` (1 to 8) specifies, contiguously."""
    turned = _TURNS[orientation](stored)
    return np.ascontiguousarray(turned)


_TURNS: Final[dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
