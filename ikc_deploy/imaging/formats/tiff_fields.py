"""TIFF: split of a file into pixels and metadata."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.formats.exif import BYTES_OF_TYPE, exif_of_directory
from ikc_deploy.imaging.formats.photoshop import resources_of_iptc
from ikc_deploy.imaging.formats.split_image import SplitImage, usable_profile
from ikc_deploy.imaging.picture import Metadata, valid_density

_PIXEL_FIELDS: Final = frozenset(
    (
        *(256, 257, 258, 259, 262, 266, 277, 284, 339),  # size, samples, compression, meaning
        *(273, 278, 279, 322, 323, 324, 325),  # strips and tiles
        *(292, 293, 317, 320, 332, 338, 347),  # fax, predictor, palette, inks, alpha, JPEG tables
        *(512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532),  # old JPEG, YCbCr
    )
)
"""TIFF fields that the pixels depend on."""
_ORIENTATION: Final = 0x0112
_UNCOMPRESSED, _YCBCR, _CONTIGUOUS = 1, 6, 1
"""Compression, PhotometricInterpretation and PlanarConfiguration."""


def split_tiff(data: bytes, page: Any) -> SplitImage:
    """Keep one page (a `tifffile.TiffPage`) of a TIFF, with the fields that its pixels depend on.

    The fields are copied unchanged into a directory after the end of the file, so that the data
    that they point to keeps its offsets.

    Raises:
        InputError: Pixels or the value of a field lie beyond the end of the file, where a decoder
            would take the new directory for them. The message continues a sentence that begins
            with the name of the file.
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
    ends = [_end_of_value(entry, order, big) for entry in kept]
    if max((*ends, *_ends_of_parts(page)), default=0) > len(data):
        raise InputError("cannot be read as an image: it is cut short, a part lies beyond the end")
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
    return SplitImage(
        pixels,
        orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1,
        usable_profile(profile),
        _tiff_metadata(data, page),
    )


def _ends_of_parts(page: Any) -> Iterator[int]:
    """Yield the end of the data of each tile or strip of a page."""
    simple = page.compression == _UNCOMPRESSED and page.photometric != _YCBCR
    row = -(-page.imagewidth * page.samplesperpixel * page.bitspersample // 8)
    parts = zip(page.dataoffsets, page.databytecounts, strict=False)
    for index, (at, count) in enumerate(parts):
        if simple and page.planarconfig == _CONTIGUOUS and not page.is_tiled:
            # Decoders ignore the numbers of bytes, which some writers get wrong.
            rows = min(page.rowsperstrip, page.imagelength - index * page.rowsperstrip)
            yield at + max(0, rows) * row
        else:
            yield at + count


def _end_of_value(entry: bytes, order: str, big: bool) -> int:
    """Return the end of the value of a directory entry; 0 if the entry itself holds it."""
    kind, count = struct.unpack_from(order + ("HQ" if big else "HI"), entry, 2)
    size, held = BYTES_OF_TYPE.get(kind, 0) * count, 8 if big else 4
    if size <= held:
        return 0
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), entry, len(entry) - held)
    return int(at + size)


def _tiff_metadata(data: bytes, page: Any) -> Metadata:
    resources, iptc = _bytes_of(_tag(page, 34377)), _bytes_of(_tag(page, 33723))
    density = None
    unit = _tag(page, 296)
    x, y = (_ratio(_tag(page, code)) for code in (282, 283))
    if x and y:
        per_inch = 2.54 if unit == 3 else 1
        density = valid_density(per_inch * x, per_inch * y, "none" if unit == 1 else "inch")
    return Metadata(
        exif=exif_of_directory(data, page.offset),
        xmp=_bytes_of(_tag(page, 700)),
        photoshop=resources or (iptc and resources_of_iptc(iptc)),
        density=density,
    )


def _tag(page: Any, code: int) -> object:
    """Return the value of a TIFF field; None if it is missing or damaged."""
    try:
        return page.tags[code].value
    except Exception:  # tifffile raises half a dozen types for damaged fields
        return None


def _bytes_of(value: object) -> bytes | None:
    """Return a field of bytes, which some writers store as numbers or as text."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, tuple) and all(isinstance(n, int) and 0 <= n < 256 for n in value):
        value = bytes(value)
    return value if isinstance(value, bytes) and value else None


def _ratio(value: object) -> float:
    if isinstance(value, tuple) and len(value) == 2 and value[1]:
        return float(value[0] / value[1])
    return 0.0
