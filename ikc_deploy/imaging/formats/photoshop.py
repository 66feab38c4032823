"""Photoshop's image resources: the block of JPEG and TIFF files that holds IPTC."""

from __future__ import annotations

import struct
from typing import Final

SIGNATURE: Final = b"Photoshop 3.0\0"
"""Beginning of a JPEG segment with image resources."""

_BLOCK: Final = b"8BIM"
_IPTC: Final = 0x0404
_DROPPED: Final = frozenset((1005, 1033, 1036, 1039, 1058, 1060))
"""Density, thumbnails, and copies of the ICC profile, EXIF and XMP."""


def adapted_resources(resources: bytes) -> bytes:
    """Return image resources without thumbnails and without copies of other metadata.

    Ends before the first damaged resource.
    """
    kept, start = [], 0
    while resources[start : start + 4] == _BLOCK and start + 12 <= len(resources):
        (number,) = struct.unpack_from(">H", resources, start + 4)
        name = resources[start + 6] + 1
        at = start + 6 + name + name % 2
        if at + 4 > len(resources):
            break
        (size,) = struct.unpack_from(">I", resources, at)
        end = at + 4 + size
        if end > len(resources):
            break
        if number not in _DROPPED:
            kept.append(resources[start:end] + bytes(size % 2))
        start = end + size % 2
    return b"".join(kept)


def resources_of_iptc(iptc: bytes) -> bytes:
    """Return image resources that hold one block of IPTC."""
    header = _BLOCK + struct.pack(">HHI", _IPTC, 0, len(iptc))
    return header + iptc + bytes(len(iptc) % 2)
