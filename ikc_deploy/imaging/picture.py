"""`Picture`: the decoded content of an image file, and its metadata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError

MAX_PIXELS: Final = 2**29 // 3
"""Default limit of pixels per image, 179 million: half a GiB of RGB. Without a limit, a file of a
few kilobytes can hold an image that exhausts the memory of a machine."""

DensityUnit = Literal["inch", "metre", "none"]
"""Unit of length of a `Density`; "none" gives only the aspect ratio of a pixel."""

_MAX_DENSITY: Final = 1e9
_METRES_PER_INCH: Final = 0.0254


@dataclass(frozen=True)
class Density:
    """Pixels per unit of length, for printing."""

    x: float
    """Horizontal density, above 0."""
    y: float
    """Vertical density, above 0."""
    unit: DensityUnit = "inch"
    """Unit of length."""

    def dpi(self) -> tuple[float, float] | None:
        """Return pixels per inch, horizontal and vertical; None without a unit of length."""
        if self.unit == "none":
            return None
        if self.unit == "inch":
            return self.x, self.y
        # PNG rounds to pixels per metre: 72 per inch become 2835, which are 72.009.
        inches = (self.x * _METRES_PER_INCH, self.y * _METRES_PER_INCH)
        x, y = (round(each) if abs(each - round(each)) < 0.02 else each for each in inches)
        return float(x), float(y)

    def turned(self) -> Density:
        """Return the density of the image after a turn by 90 degrees."""
        return replace(self, x=self.y, y=self.x)


def valid_density(x: float, y: float, unit: DensityUnit) -> Density | None:
    """Return a density; None if it is out of range or gives no information."""
    if not (0 < x < _MAX_DENSITY and 0 < y < _MAX_DENSITY) or (unit == "none" and x == y):
        return None
    return Density(x, y, unit)


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image file, except for its ICC profile, as the file holds it.

    `ikc_deploy.imaging.formats.metadata_writing` adapts it to the image that is written:
    orientation 1, no thumbnail, the new size.
    """

    exif: bytes | None = None
    """EXIF, a TIFF structure without the prefix "Exif"; None for none."""
    xmp: bytes | None = None
    """XMP packet; None for none."""
    photoshop: bytes | None = None
    """Photoshop's image resources, which hold IPTC; None for none."""
    comments: tuple[bytes, ...] = ()
    """Comments of a JPEG or GIF."""
    text_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Type and content of the text chunks of a PNG (tEXt, zTXt, iTXt)."""
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Type and content of the colour chunks of a PNG (cICP, sRGB, gAMA, cHRM, mDCV, cLLI)."""
    density: Density | None = None
    """Density of the pixels; None if it is not known."""

    def upright(self, orientation: int) -> Metadata:
        """Return the metadata of the image that EXIF `orientation` (1 to 8) has turned."""
        if self.density is None or orientation < 5:
            return self
        return replace(self, density=self.density.turned())

    def without_description(self) -> Metadata:
        """Return only what the colours of the pixels depend on."""
        return Metadata(colour_chunks=self.colour_chunks)


NO_METADATA: Final = Metadata()


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
