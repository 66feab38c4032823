"""Separation of pixels and metadata, so that no metadata can prevent the decoding of pixels.

PNG chunks, JPEG segments and TIFF fields that do not describe the pixels are removed from the data
that a decoder gets: texts of any size, damaged EXIF, vendors' data. The two that matter for an
image are returned separately: orientation and colour profile.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_ORIENTATION: Final = 0x0112
_MAX_PROFILE: Final = 8 * 2**20
"""Maximum size in bytes. Printer profiles have up to 4 MiB; JPEG cannot hold more than 15."""

# Transparency, and the chunks that identify an animation.
_PIXEL_CHUNKS: Final = (b"tRNS", b"acTL", b"fcTL", b"fdAT")

_EXIF: Final = b"Exif\0\0"
_ICC: Final = b"ICC_PROFILE\0"
_APP0, _APP15, _COMMENT = 0xE0, 0xEF, 0xFE
_JFIF_BYTES, _ADOBE_BYTES = 14, 12

_PIXEL_FIELDS: Final = frozenset(
    (
        *(256, 257, 258, 259, 262, 266, 277, 284, 339),  # size, samples, compression, meaning
        *(273, 278, 279, 322, 323, 324, 325),  # strips and tiles
        *(292, 293, 317, 320, 332, 338, 347),  # fax, predictor, palette, inks, alpha, JPEG tables
        *(512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532),  # old JPEG, YCbCr
    )
)
"""TIFF fields that the pixels depend on."""


@dataclass(frozen=True)
class Parted:
    """An image file without its metadata, and the two metadata fields that are kept."""

    pixels: bytes
    """Content of a file of the same format, without metadata."""
    orientation: int = 1
    """EXIF orientation, 1 to 8; 1 if it is missing or damaged."""
    icc_profile: bytes | None = None
    """ICC colour profile; None if it is missing or damaged."""


def part_png(data: bytes) -> Parted:
    """Keep the critical chunks, transparency and frames of a PNG, up to the first broken chunk."""
    view, kept = memoryview(data), [memoryview(PNG_SIGNATURE)]
    exif, profile = b"", None
    start = len(PNG_SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        critical = kind[:1].isupper()
        if critical or kind in _PIXEL_CHUNKS:
            kept.append(view[start:end])
        elif kind == b"eXIf":
            exif = data[start + 8 : end - 4]
        elif kind == b"iCCP":
            profile = _inflated(data[start + 8 : end - 4])
        start = end
        if kind == b"IEND":
            break
    return Parted(b"".join(kept), orientation_of(exif), profile)


def part_jpeg(data: bytes) -> Parted:
    """Drop comments and application segments of a JPEG, except those that define its colours."""
    view, kept = memoryview(data), [memoryview(data)[:2]]
    exif = b""
    profiles: dict[tuple[int, int], bytes] = {}
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == 0xFF:  # padding
            start += 1
            continue
        end = start + 2 + length
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or length < 2 or end > len(data):
            break
        body = data[start + 4 : end]
        if not (_APP0 <= marker <= _APP15 or marker == _COMMENT) or _says_colours(marker, body):
            kept.append(view[start:end])
        elif marker == _APP0 + 1 and body.startswith(_EXIF) and not exif:
            exif = body
        elif marker == _APP0 + 2 and body.startswith(_ICC) and len(body) > len(_ICC) + 2:
            number, count = body[len(_ICC) : len(_ICC) + 2]
            profiles.setdefault((number, count), body[len(_ICC) + 2 :])
        start = end
    kept.append(view[start:])
    return Parted(b"".join(kept), orientation_of(exif), _joined(profiles))


def part_tiff(data: bytes, page: Any) -> Parted:
    """Keep one page (a `tifffile.TiffPage`) of a TIFF, with the fields that its pixels depend on.

    The fields are copied unchanged into a directory after the end of the file, so that the data
    that they point to keeps its offsets.
    """
    order, big = page.parent.byteorder, page.parent.is_bigtiff
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    (count,) = struct.unpack_from(order + count_format, data, page.offset)
    first = page.offset + struct.calcsize(order + count_format)
    starts = range(first, first + count * entry_bytes, entry_bytes)
    entries = {struct.unpack_from(order + "H", data, at)[0]: at for at in reversed(starts)}
    kept = [
        data[at : at + entry_bytes] for tag, at in sorted(entries.items()) if tag in _PIXEL_FIELDS
    ]
    place = len(data) + len(data) % 2
    pointer = struct.pack(order + offset_format, place)
    header = data[: 8 if big else 4] + pointer
    directory = struct.pack(order + count_format, len(kept)) + b"".join(kept)
    pixels = b"".join(
        (
            header,
            memoryview(data)[len(header) :],
            bytes(place - len(data)),
            directory,
            bytes(len(pointer)),
        )
    )
    orientation = _tag(page, _ORIENTATION)
    profile = _tag(page, 34675)
    return Parted(
        pixels,
        orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1,
        sound_profile(profile),
    )


def orientation_of(exif: bytes | None) -> int:
    """Return the orientation in EXIF data, 1 to 8; 1 if it is missing or damaged."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        found = tags.get(_ORIENTATION)
    except Exception:  # Pillow raises half a dozen types for damaged EXIF
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def sound_profile(profile: object) -> bytes | None:
    """Return `profile` if it is bytes of a size that every format can hold, otherwise None."""
    if isinstance(profile, bytes) and 0 < len(profile) <= _MAX_PROFILE:
        return profile
    return None


def upright(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
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


def _inflated(chunk: bytes) -> bytes | None:
    """Return the profile in an iCCP chunk: a name, a method, zlib data."""
    _, end, rest = chunk.partition(b"\0")
    if not end:
        return None
    try:
        # Bounded, because a small chunk can decompress to any size.
        profile = zlib.decompressobj().decompress(rest[1:], _MAX_PROFILE + 1)
    except zlib.error:
        return None
    return sound_profile(profile)


def _says_colours(marker: int, body: bytes) -> bool:
    """Return whether a segment defines how colours are stored, and is complete."""
    if marker == _APP0:
        return body.startswith(b"JFIF\0") and len(body) >= _JFIF_BYTES
    return marker == _APP0 + 14 and body.startswith(b"Adobe") and len(body) >= _ADOBE_BYTES


def _joined(profiles: dict[tuple[int, int], bytes]) -> bytes | None:
    """Join a profile from its numbered parts; None if one is missing."""
    counts = {count for _, count in profiles}
    if len(counts) != 1 or {number for number, _ in profiles} != set(range(1, max(counts) + 1)):
        return None
    return sound_profile(b"".join(profiles[key] for key in sorted(profiles)))


def _tag(page: Any, code: int) -> object:
    """Return the value of a TIFF field; None if it is missing or damaged."""
    try:
        return page.tags[code].value
    except Exception:  # tifffile raises half a dozen types for damaged fields
        return None
