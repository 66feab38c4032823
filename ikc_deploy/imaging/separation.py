"""Separation of pixels and metadata, so that no metadata can prevent the decoding of pixels.

PNG chunks, JPEG segments and TIFF fields that do not describe the pixels are removed from the data
that a decoder gets: texts of any size, damaged EXIF, vendors' data. Orientation, colour profile and
the `Metadata` that a written image keeps are returned separately.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.imaging.colour_chunks import COLOUR_CHUNKS
from ikc_deploy.imaging.exif import exif_of_directory, plain_exif
from ikc_deploy.imaging.metadata import NO_METADATA, Density, DensityUnit, Metadata
from ikc_deploy.imaging.photoshop import SIGNATURE as PHOTOSHOP
from ikc_deploy.imaging.photoshop import resources_of_iptc

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_ORIENTATION: Final = 0x0112
_MAX_PROFILE: Final = 8 * 2**20
"""Maximum size in bytes. Printer profiles have up to 4 MiB; JPEG cannot hold more than 15."""

# Transparency, and the chunks that identify an animation.
_COLOUR_TYPE: Final = 25
"""Position of the colour type in a PNG."""
_INDEXED: Final = 3
_KEY_BYTES: Final[dict[int | None, int]] = {0: 2, 2: 6}
"""Length of the transparent colour in chunk tRNS by colour type: grey and RGB."""

_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")
_METADATA_CHUNKS: Final = (*_TEXT_CHUNKS, *COLOUR_CHUNKS, b"eXIf", b"iCCP", b"pHYs")
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
_RAW_PROFILE: Final = b"raw profile type "
_MAX_DENSITY: Final = 1e9

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
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
    metadata: Metadata = NO_METADATA
    """All other metadata."""


def part_png(data: bytes) -> Parted:
    """Keep the critical chunks and the transparency of a PNG, up to the first broken chunk."""
    view, kept = memoryview(data), [memoryview(PNG_SIGNATURE)]
    beside: list[tuple[bytes, bytes]] = []
    colours: int | None = None
    pixels = False
    for kind, start, end in _png_chunks(data):
        if kind[:1].isupper():
            kept.append(view[start:end])
            colours = (end - start - 12) // 3 if kind == b"PLTE" else colours
            pixels = pixels or kind == b"IDAT"
        elif kind == b"tRNS":
            if not pixels and _is_sound(data, start, end) and _is_key(data, colours, end - start):
                kept.append(view[start:end])
        elif kind in _METADATA_CHUNKS and _is_kept(data, kind, start, end):
            beside.append((kind, data[start + 8 : end - 4]))
    metadata = _png_metadata(beside)
    profile = next((_inflated(content) for kind, content in beside if kind == b"iCCP"), None)
    return Parted(b"".join(kept), orientation_of(metadata.exif), profile, metadata)


def png_images(data: bytes) -> int:
    """Return the number of images in a PNG: more than 1 for an animation.

    A damaged animation is one image, the one that programs without animations show.
    """
    frames, seen = 1, set()
    for kind, start, end in _png_chunks(data):
        if kind == b"acTL" and b"IDAT" not in seen and end - start == 20:
            if _is_sound(data, start, end):
                frames = int.from_bytes(data[start + 8 : start + 12])
        elif kind == b"fcTL" and b"IDAT" in seen and b"first" not in seen:
            seen.add(b"hidden")
        elif kind == b"fcTL":
            seen.add(b"first")
        seen.add(kind)
    if b"fdAT" not in seen:
        return 1
    return max(1, frames) + (b"hidden" in seen)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and end of each chunk up to IEND; the last one may be cut short."""
    start = len(PNG_SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        yield kind, start, end
        start = end
        if kind == b"IEND":
            break


def _is_kept(data: bytes, kind: bytes, start: int, end: int) -> bool:
    # Profiles and EXIF have checks of their own, and many programs write wrong checksums.
    checked = kind in (b"iCCP", b"eXIf") or _is_sound(data, start, end)
    return end <= len(data) and checked


def _is_sound(data: bytes, start: int, end: int) -> bool:
    """Return whether a chunk has the right checksum."""
    return data[end - 4 : end] == checksum(data[start + 4 : start + 8], data[start + 8 : end - 4])


def _is_key(data: bytes, colours: int | None, chunk: int) -> bool:
    """Return whether a tRNS chunk of `chunk` bytes in all is valid for a PNG.

    Args:
        data: The PNG.
        colours: Number of colours of the palette before the chunk; None if there is none.
        chunk: Bytes of the chunk, with its frame of 12 bytes.
    """
    length = chunk - 12
    kind = data[_COLOUR_TYPE] if len(data) > _COLOUR_TYPE else None
    if kind == _INDEXED:
        return colours is not None and length <= colours
    return length == _KEY_BYTES.get(kind)


def checksum(kind: bytes, content: bytes) -> bytes:
    """Return the checksum of a PNG chunk."""
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _png_metadata(chunks: list[tuple[bytes, bytes]]) -> Metadata:
    exif = next((plain_exif(content) for kind, content in chunks if kind == b"eXIf"), None)
    xmp, resources, texts = None, None, []
    for kind, content in chunks:
        if kind not in _TEXT_CHUNKS:
            continue
        keyword = content.partition(b"\0")[0]
        if keyword == _XMP_KEYWORD:
            xmp = xmp or _text_of(kind, content)
        elif keyword.lower().startswith(_RAW_PROFILE):
            # ImageMagick's way to store other formats' blocks, from before PNG had its own.
            block = _raw_profile(_text_of(kind, content) or b"")
            name = keyword.lower().removeprefix(_RAW_PROFILE)
            if name in (b"exif", b"app1") and not block.startswith(_XMP):
                exif = exif or plain_exif(block)
            elif name in (b"xmp", b"app1"):
                xmp = xmp or block.removeprefix(_XMP) or None
            elif name in (b"iptc", b"8bim"):
                resources = resources or block.removeprefix(PHOTOSHOP) or None
        else:
            texts.append((kind, content))
    colours = tuple(
        next(each for each in chunks if each[0] == kind)
        for kind in COLOUR_CHUNKS
        if any(each[0] == kind for each in chunks)
    )
    physical = next((content for kind, content in chunks if kind == b"pHYs"), b"")
    density = None
    if len(physical) == 9:
        x, y, unit = struct.unpack(">IIB", physical)
        density = _density(x, y, "metre" if unit == 1 else "none")
    return Metadata(exif, xmp, resources, (), tuple(texts), colours, density)


def _text_of(kind: bytes, chunk: bytes) -> bytes | None:
    """Return the text of a chunk, decompressed; None if it is damaged or too large."""
    _, _, rest = chunk.partition(b"\0")
    if kind == b"tEXt":
        return rest
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    else:
        packed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.partition(b"\0")[2].partition(b"\0")[2]
    return _decompressed(rest) if packed else rest


def _raw_profile(text: bytes) -> bytes:
    """Return the block in a text of ImageMagick: a name, a length, hexadecimal digits."""
    parts = text.split(None, 2)
    try:
        return bytes.fromhex(parts[2].decode("ascii")) if len(parts) == 3 else b""
    except ValueError:
        return b""


def _density(x: float, y: float, unit: DensityUnit) -> Density | None:
    """Return a density; None if it states nothing."""
    if not (0 < x < _MAX_DENSITY and 0 < y < _MAX_DENSITY) or (unit == "none" and x == y):
        return None
    return Density(x, y, unit)


def part_jpeg(data: bytes) -> Parted:
    """Drop comments and application segments of a JPEG, except those that define its colours."""
    view, kept = memoryview(data), [memoryview(data)[:2]]
    beside: list[tuple[int, bytes]] = []
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
        application = _APP0 <= marker <= _APP15 or marker == _COMMENT
        if not application or _says_colours(marker, body):
            kept.append(view[start:end])
        if application:
            beside.append((marker, body))
        start = end
    kept.append(view[start:])
    metadata = _jpeg_metadata(beside)
    profiles: dict[tuple[int, int], bytes] = {}
    for body in _bodies(beside, _APP0 + 2, _ICC):
        if len(body) > 2:
            profiles.setdefault((body[0], body[1]), body[2:])
    return Parted(b"".join(kept), orientation_of(metadata.exif), _joined(profiles), metadata)


def _bodies(segments: list[tuple[int, bytes]], marker: int, prefix: bytes) -> list[bytes]:
    """Return the contents of the segments with a marker and a prefix, without the prefix."""
    return [
        body.removeprefix(prefix)
        for kind, body in segments
        if kind == marker and body.startswith(prefix)
    ]


def _jpeg_metadata(segments: list[tuple[int, bytes]]) -> Metadata:
    exif = next(iter(_bodies(segments, _APP0 + 1, _EXIF)), None)
    xmp = next(iter(_bodies(segments, _APP0 + 1, _XMP)), None)
    density = None
    for body in _bodies(segments, _APP0, b"JFIF\0")[:1]:
        if len(body) >= _JFIF_BYTES - 5:
            unit, x, y = struct.unpack_from(">BHH", body, 2)
            per_inch = 2.54 if unit == 2 else 1
            density = _density(per_inch * x, per_inch * y, "inch" if unit in (1, 2) else "none")
    return Metadata(
        exif=plain_exif(exif),
        xmp=xmp or None,
        photoshop=b"".join(_bodies(segments, _APP0 + 13, PHOTOSHOP)) or None,
        comments=tuple(body for kind, body in segments if kind == _COMMENT and body),
        density=density,
    )


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
        _tiff_metadata(data, page),
    )


def _tiff_metadata(data: bytes, page: Any) -> Metadata:
    resources, iptc = _bytes_of(_tag(page, 34377)), _bytes_of(_tag(page, 33723))
    density = None
    unit = _tag(page, 296)
    x, y = (_ratio(_tag(page, code)) for code in (282, 283))
    if x and y:
        per_inch = 2.54 if unit == 3 else 1
        density = _density(per_inch * x, per_inch * y, "none" if unit == 1 else "inch")
    return Metadata(
        exif=exif_of_directory(data, page.offset),
        xmp=_bytes_of(_tag(page, 700)),
        photoshop=resources or (iptc and resources_of_iptc(iptc)),
        density=density,
    )


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
    return sound_profile(_decompressed(rest[1:]))


def _decompressed(data: bytes) -> bytes | None:
    """Return zlib data decompressed; None if it is damaged or too large."""
    try:
        # Bounded, because a small chunk can decompress to any size.
        plain = zlib.decompressobj().decompress(data, _MAX_PROFILE + 1)
    except zlib.error:
        return None
    return plain if len(plain) <= _MAX_PROFILE else None


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
