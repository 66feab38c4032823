"""EXIF for an image that was turned and enlarged.

The block is edited in place, so that the offsets in it stay valid. Those of makers' notes are not
documented, and a block that is written again loses them.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image

from ikc_deploy.imaging.picture import Density

_PREFIX: Final = b"Exif\0\0"
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION = 0x0112, 0x011A, 0x011B
_UNIT: Final = 0x0128
_WIDTH, _LENGTH, _PIXEL_X, _PIXEL_Y = 0x0100, 0x0101, 0xA002, 0xA003
_SUB_DIRECTORIES: Final = (0x8769, 0x8825, 0xA005)
"""Pointers to the EXIF, GPS and interoperability directories."""
_THUMBNAIL: Final = ((0x0201, 0x0202), (0x0111, 0x0117))
"""Tags of the place and the size of a thumbnail, as JPEG and as samples."""
_SHORT, _LONG = 3, 4
BYTES_OF_TYPE: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,  # BigTIFF
}
"""Bytes of a value of a TIFF field by its type."""

DESCRIPTIVE_TAGS: Final = frozenset(
    (
        *(269, 270, 271, 272, 274, 285, 305, 306, 315, 316, 33432),
        *(18246, 18249, 40091, 40092, 40093, 40094, 40095),  # ratings and titles of Windows
        *(0x8769, 0x8825),
    )
)
"""Tags of a TIFF directory that describe an image, not how its samples are stored."""
_DESCRIPTION: Final = 270
_SHAPE_IN_TEXT: Final = ('{"shape"', "ImageJ=", "<?xml", "<OME")
"""Beginnings of descriptions that programs read as the layout of the samples."""


@dataclass(frozen=True)
class _Entry:
    at: int
    tag: int
    kind: int
    count: int


class _ExifBlock:
    """A block of EXIF that is edited in place; raises `struct.error` if it is damaged."""

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif)
        if exif[:4] not in (b"II*\0", b"MM\0*"):
            raise struct.error("no TIFF structure")
        self.order = "<" if exif[:1] == b"I" else ">"
        self.first = self._long(4)

    def _long(self, at: int) -> int:
        number: int = struct.unpack_from(f"{self.order}I", self.data, at)[0]
        return number

    def entries(self, directory: int) -> list[_Entry]:
        (count,) = struct.unpack_from(f"{self.order}H", self.data, directory)
        starts = range(directory + 2, directory + 2 + 12 * count, 12)
        found = []
        for at in starts:
            tag, kind, values = struct.unpack_from(f"{self.order}HHI", self.data, at)
            struct.unpack_from("4x", self.data, at + 8)
            found.append(_Entry(at, tag, kind, values))
        return found

    def next_pointer(self, directory: int) -> int:
        """Return the place of the pointer to the next directory."""
        return directory + 2 + 12 * len(self.entries(directory))

    def number(self, entry: _Entry) -> int:
        form = "H" if entry.kind == _SHORT else "I"
        value: int = struct.unpack_from(self.order + form, self.data, entry.at + 8)[0]
        return value

    def ratio(self, entry: _Entry) -> float:
        at = self._long(entry.at + 8)
        above, below = struct.unpack_from(f"{self.order}II", self.data, at)
        return float(above / below)

    def set_number(self, entry: _Entry, value: int) -> None:
        if entry.count != 1 or entry.kind not in (_SHORT, _LONG):
            return
        kind = entry.kind if value < 2**16 else _LONG
        form = "HII" if kind == _LONG else "HIH2x"
        struct.pack_into(self.order + form, self.data, entry.at + 2, kind, 1, value)

    def end_of(self, entry: _Entry) -> int:
        """Return the end of the value of an entry; 0 if it lies in the entry or is damaged."""
        size = BYTES_OF_TYPE.get(entry.kind, 0) * entry.count
        end = self._long(entry.at + 8) + size
        return end if size > 4 and end <= len(self.data) else 0

    def directories(self) -> Iterator[int]:
        """Yield the places of the first directory and of those it points to."""
        waiting, seen = [self.first], set()
        while waiting:
            directory = waiting.pop(0)
            if directory in seen:
                continue
            seen.add(directory)
            yield directory
            waiting += [
                self.number(entry)
                for entry in self.entries(directory)
                if entry.tag in _SUB_DIRECTORIES
            ]


def strip_exif_prefix(exif: object) -> bytes | None:
    """Return EXIF bytes without the prefix of JPEG's segment; None if there are none."""
    if not isinstance(exif, bytes) or not exif:
        return None
    return exif.removeprefix(_PREFIX) or None


def adapted_exif(exif: bytes, height: int, width: int) -> bytes | None:
    """Return EXIF for an upright image of `height` x `width` pixels, without a thumbnail.

    Every other value keeps its bytes and its place. If the orientation turned the image by 90
    degrees, horizontal and vertical resolution are exchanged.

    Args:
        exif: A TIFF structure, without the prefix "Exif".
        height: Height of the upright image in pixels.
        width: Width of the upright image in pixels.

    Returns:
        The edited copy; None if the structure is damaged.
    """
    try:
        block = _ExifBlock(exif)
        live = _edit(block, height, width)
        _drop_thumbnail(block, live)
    except struct.error:
        return None
    return bytes(block.data)


def _edit(block: _ExifBlock, height: int, width: int) -> int:
    """Set orientation and sizes; return the end of everything that is kept."""
    sizes = {_WIDTH: width, _LENGTH: height, _PIXEL_X: width, _PIXEL_Y: height}
    live, turned = 8, False
    for directory in block.directories():
        live = max(live, block.next_pointer(directory) + 4)
        for entry in block.entries(directory):
            live = max(live, block.end_of(entry))
            if entry.tag in sizes:
                block.set_number(entry, sizes[entry.tag])
            elif entry.tag == _ORIENTATION and directory == block.first:
                turned = 5 <= block.number(entry) <= 8
                block.set_number(entry, 1)
    if turned:
        _exchange_resolutions(block)
    return live


def _exchange_resolutions(block: _ExifBlock) -> None:
    found = {entry.tag: entry for entry in block.entries(block.first)}
    x, y = found.get(_X_RESOLUTION), found.get(_Y_RESOLUTION)
    if x is not None and y is not None:
        first, second = block.data[x.at + 2 : x.at + 12], block.data[y.at + 2 : y.at + 12]
        block.data[x.at + 2 : x.at + 12], block.data[y.at + 2 : y.at + 12] = second, first


def _drop_thumbnail(block: _ExifBlock, live: int) -> None:
    """Overwrite the thumbnail's directory and data with zeros, and cut them off at the end."""
    pointer = block.next_pointer(block.first)
    if pointer + 4 > len(block.data):
        return
    (second,) = struct.unpack_from(f"{block.order}I", block.data, pointer)
    struct.pack_into("4x", block.data, pointer)
    if second == 0:
        return
    try:
        found = {entry.tag: entry for entry in block.entries(second)}
    except struct.error:
        found = {}
    for place, size in _THUMBNAIL:
        if place in found and size in found:
            begin = block.number(found[place])
            end = min(begin + block.number(found[size]), len(block.data))
            block.data[begin:end] = bytes(max(0, end - begin))
    if second >= live:
        del block.data[live:]


def exif_density(exif: bytes) -> Density | None:
    """Return the resolution that EXIF states, in pixels per inch; None if it states none."""
    try:
        block = _ExifBlock(exif)
        found = {entry.tag: entry for entry in block.entries(block.first)}
        sides = [block.ratio(found[tag]) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
        unit = block.number(found[_UNIT]) if _UNIT in found else 2
    except (struct.error, KeyError, ZeroDivisionError):
        return None
    per_inch = {2: 1.0, 3: 2.54}.get(unit, 0.0)
    x, y = (per_inch * side for side in sides)
    # 1 is what programs write that know no resolution.
    return Density(x, y) if x > 1 and y > 1 else None


def exif_of_directory(data: bytes, offset: int) -> bytes | None:
    """Return the descriptive fields of a TIFF directory as EXIF.

    Args:
        data: Content of a TIFF file.
        offset: Place of the directory in it.

    Returns:
        A TIFF structure with one directory, and with those of EXIF and GPS; None if there are no
        such fields or they are damaged.
    """
    stored = Image.Exif()
    stored.endian = "<" if data[:1] == b"I" else ">"
    stored.bigtiff = b"+" in data[:4]
    try:
        with _without_warnings():
            stored.load_from_fp(BytesIO(data), offset)
            kept = Image.Exif()
            for tag in DESCRIPTIVE_TAGS & set(stored):
                value = stored.get_ifd(tag) if tag in _SUB_DIRECTORIES else stored[tag]
                if tag == _DESCRIPTION and str(value).lstrip().startswith(_SHAPE_IN_TEXT):
                    continue
                kept[tag] = value
            return strip_exif_prefix(kept.tobytes()) if len(kept) else None
    except Exception:  # Pillow raises half a dozen types for damaged fields
        return None


def fields_for_tiff(exif: bytes) -> Image.Exif | None:
    """Return EXIF as fields of a TIFF file, without those that its samples depend on.

    None if Pillow cannot write them.
    """
    stored = Image.Exif()
    try:
        with _without_warnings():
            stored.load(exif)
            for tag in set(stored) - DESCRIPTIVE_TAGS:
                del stored[tag]
            for tag in set(stored) & set(_SUB_DIRECTORIES):
                stored.get_ifd(tag)
            Image.new("L", (1, 1)).save(BytesIO(), "TIFF", exif=stored)
    except Exception:  # Pillow raises half a dozen types for values that it cannot write
        return None
    return stored


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings about damaged fields, which are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def resolution_only(x: float, y: float) -> bytes:
    """Return EXIF that holds only a resolution in pixels per inch."""
    fields = Image.Exif()
    fields[_X_RESOLUTION], fields[_Y_RESOLUTION], fields[0x0128] = x, y, 2
    return fields.tobytes().removeprefix(_PREFIX)
