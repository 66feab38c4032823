"""PNG: split of a file into pixels and metadata."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.formats.colour_chunks import COLOUR_CHUNKS
from ikc_deploy.imaging.formats.exif import strip_exif_prefix
from ikc_deploy.imaging.formats.photoshop import SIGNATURE as PHOTOSHOP
from ikc_deploy.imaging.formats.split_image import (
    MAX_PROFILE,
    SplitImage,
    orientation_of,
    usable_profile,
)
from ikc_deploy.imaging.picture import Metadata, valid_density

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE: Final = 25
"""Position of the colour type in a PNG."""
_INDEXED: Final = 3
_SAMPLES: Final = {0: 1, 2: 3, _INDEXED: 1, 4: 2, 6: 4}
"""Samples per pixel by colour type."""
_ADAM7: Final = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""First column and row, and distance of columns and rows, of each pass of an interlaced PNG."""
_BLOCK: Final = 2**20
"""Bytes that are decompressed at once."""
_KEY_BYTES: Final[dict[int | None, int]] = {0: 2, 2: 6}
"""Length of the transparent colour in chunk tRNS by colour type: grey and RGB."""
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")
_METADATA_CHUNKS: Final = (*_TEXT_CHUNKS, *COLOUR_CHUNKS, b"eXIf", b"iCCP", b"pHYs")
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
_RAW_PROFILE: Final = b"raw profile type "
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"


def split_png(data: bytes) -> SplitImage:
    """Keep the critical chunks and the transparency of a PNG, up to the first broken chunk."""
    view, kept = memoryview(data), [memoryview(PNG_SIGNATURE)]
    others: list[tuple[bytes, bytes]] = []
    colours: int | None = None
    pixels = False
    for kind, start, end in _png_chunks(data):
        if kind[:1].isupper():
            kept.append(view[start:end])
            colours = (end - start - 12) // 3 if kind == b"PLTE" else colours
            pixels = pixels or kind == b"IDAT"
        elif kind == b"tRNS":
            valid = _is_valid_transparency(data, colours, end - start)
            if valid and not pixels and _has_valid_checksum(data, start, end):
                kept.append(view[start:end])
        elif kind in _METADATA_CHUNKS and _is_kept(data, kind, start, end):
            others.append((kind, data[start + 8 : end - 4]))
    metadata = _png_metadata(others)
    profiles = (_decompressed_profile(content) for kind, content in others if kind == b"iCCP")
    profile = next(profiles, None)
    return SplitImage(b"".join(kept), orientation_of(metadata.exif), profile, metadata)


def count_images(data: bytes) -> int:
    """Return the number of images in a PNG: more than 1 for an animation.

    A damaged animation is one image, the one that programs without animations show.
    """
    frames, seen = 1, set()
    for kind, start, end in _png_chunks(data):
        if kind == b"acTL" and b"IDAT" not in seen and end - start == 20:
            if _has_valid_checksum(data, start, end):
                frames = int.from_bytes(data[start + 8 : start + 12])
        elif kind == b"fcTL" and b"IDAT" in seen and b"first" not in seen:
            seen.add(b"hidden")
        elif kind == b"fcTL":
            seen.add(b"first")
        seen.add(kind)
    if b"fdAT" not in seen:
        return 1
    return max(1, frames) + (b"hidden" in seen)


def check_rows(data: bytes) -> None:
    """Raise `InputError` if a PNG has too few rows, which Pillow fills with zeros.

    The message continues a sentence that begins with the name of the file.
    """
    width, height, bits, kind, interlaced = struct.unpack_from(">IIBBxxB", data, 16)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    needed = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0:
            needed += rows * (1 + -(-columns * bits * _SAMPLES[kind] // 8))
    packed = b"".join(
        data[start + 8 : end - 4] for name, start, end in _png_chunks(data) if name == b"IDAT"
    )
    inflator = zlib.decompressobj()
    while packed and not inflator.eof and needed > 0:
        needed -= len(inflator.decompress(packed, _BLOCK))
        packed = inflator.unconsumed_tail
    if needed > 0:
        raise InputError("cannot be read as an image: it is cut short, rows are missing")


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
    checked = kind in (b"iCCP", b"eXIf") or _has_valid_checksum(data, start, end)
    return end <= len(data) and checked


def _has_valid_checksum(data: bytes, start: int, end: int) -> bool:
    """Return whether a chunk has the right checksum."""
    return data[end - 4 : end] == checksum(data[start + 4 : start + 8], data[start + 8 : end - 4])


def _is_valid_transparency(data: bytes, colours: int | None, chunk: int) -> bool:
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
    exif = next((strip_exif_prefix(content) for kind, content in chunks if kind == b"eXIf"), None)
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
                exif = exif or strip_exif_prefix(block)
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
        density = valid_density(x, y, "metre" if unit == 1 else "none")
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


def _decompressed_profile(chunk: bytes) -> bytes | None:
    """Return the profile in an iCCP chunk: a name, a method, zlib data."""
    _, end, rest = chunk.partition(b"\0")
    if not end:
        return None
    return usable_profile(_decompressed(rest[1:]))


def _decompressed(data: bytes) -> bytes | None:
    """Return zlib data decompressed; None if it is damaged or too large."""
    try:
        # Bounded, because a small chunk can decompress to any size.
        plain = zlib.decompressobj().decompress(data, MAX_PROFILE + 1)
    except zlib.error:
        return None
    return plain if len(plain) <= MAX_PROFILE else None
