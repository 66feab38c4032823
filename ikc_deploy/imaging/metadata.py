"""`Metadata`: the metadata of an image file, except for its ICC profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

DensityUnit = Literal["inch", "metre", "none"]

_PER_METRE: Final = 0.0254


@dataclass(frozen=True)
class Density:
    """Pixels per unit of length, for printing."""

    x: float
    """Horizontal density, above 0."""
    y: float
    """Vertical density, above 0."""
    unit: DensityUnit = "inch"
    """Unit of length; "none" gives only the aspect ratio of a pixel."""

    def dpi(self) -> tuple[float, float] | None:
        """Return pixels per inch, horizontal and vertical; None without a unit of length."""
        if self.unit == "none":
            return None
        if self.unit == "inch":
            return self.x, self.y
        # PNG rounds to pixels per metre: 72 per inch become 2835, which are 72.009.
        inches = (self.x * _PER_METRE, self.y * _PER_METRE)
        x, y = (round(each) if abs(each - round(each)) < 0.02 else each for each in inches)
        return float(x), float(y)

    def turned(self) -> Density:
        """Return the density of the image after a turn by 90 degrees."""
        return replace(self, x=self.y, y=self.x)


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image file, except for its ICC profile, as the file holds it.

    `ikc_deploy.imaging.metadata_writing` adapts it to the image that is written: orientation 1, no
    thumbnail, the new size.
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
