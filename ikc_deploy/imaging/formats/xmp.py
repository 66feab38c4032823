"""XMP for an image that was turned and enlarged.

Only the properties that the new pixels contradict are changed, under the prefixes that the XMP
specification prescribes; the packet is otherwise unchanged.
"""

from __future__ import annotations

import re
from typing import Final

_ELEMENTS: Final = (
    b"xmp:Thumbnails",
    b"xap:Thumbnails",
    # The directory of the other images in the file: gain maps, motion photographs.
    b"Container:Directory",
    b"GContainer:Directory",
)
"""Elements about images that the written file does not hold."""
# A run of spaces begins after something else: otherwise padding takes quadratic time.
_ATTRIBUTES: Final = rb"""(?x) (?<!\s)\s+ (?: hdrgm:\w+ | GCamera:(?:MotionPhoto|MicroVideo)\w*
    | xmpNote:HasExtendedXMP ) \s*=\s* (?: "[^"]*" | '[^']*' )"""
"""Attributes about them, and about an extended packet that is not copied."""


def adapted_xmp(xmp: bytes, height: int, width: int) -> bytes | None:
    """Return XMP for an upright image of `height` x `width` pixels, without thumbnails.

    Returns:
        The edited packet; None if it is not UTF-8.
    """
    try:
        xmp.decode("utf-8")
    except UnicodeDecodeError:
        return None
    for element in _ELEMENTS:
        xmp = _without(xmp, element)
    xmp = re.sub(_ATTRIBUTES, b"", xmp)
    values = {
        b"tiff:Orientation": 1,
        b"tiff:ImageWidth": width,
        b"tiff:ImageLength": height,
        b"exif:PixelXDimension": width,
        b"exif:PixelYDimension": height,
    }
    for name, value in values.items():
        written = str(value).encode()
        xmp = re.sub(
            rb"(\b" + name + rb"\s*=\s*[\"'])\s*\d+\s*([\"'])", rb"\g<1>" + written + rb"\g<2>", xmp
        )
        xmp = re.sub(
            rb"(<" + name + rb"\s*>)\s*\d+\s*(</" + name + rb"\s*>)",
            rb"\g<1>" + written + rb"\g<2>",
            xmp,
        )
    return xmp


def _without(xmp: bytes, element: bytes) -> bytes:
    """Return XMP without the closed elements of this name, in linear time."""
    opening, closing = re.compile(rb"<" + element + rb"\b"), b"</" + element + b">"
    kept, position = [], 0
    while found := opening.search(xmp, position):
        end = xmp.find(closing, found.end())
        if end < 0:
            break
        kept.append(xmp[position : found.start()])
        position = end + len(closing)
    return b"".join((*kept, xmp[position:]))
