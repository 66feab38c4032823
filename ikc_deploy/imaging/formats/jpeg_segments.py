"""JPEG: split of a file into pixels and metadata."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Final

from PIL.JpegImagePlugin import JpegImageFile

from ikc_deploy.imaging.formats.exif import strip_exif_prefix
from ikc_deploy.imaging.formats.photoshop import SIGNATURE as PHOTOSHOP
from ikc_deploy.imaging.formats.split_image import SplitImage, orientation_of, usable_profile
from ikc_deploy.imaging.picture import DensityUnit, Metadata, valid_density

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_ICC: Final = b"ICC_PROFILE\0"
_APP0, _APP15, _COMMENT = 0xE0, 0xEF, 0xFE
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
_SCAN: Final = 0xDA
_START_OF_SCAN: Final = bytes((0xFF, _SCAN))
_FRAMES: Final = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive frames with Huffman coding."""
_END: Final = b"\xff\xd9"
_RESTART_INTERVAL: Final = 0xDD
_RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")
_FILLERS: Final = (
    *(bytes(256), 256 * b"\xff\0", 256 * b"\x55"),
    *(bytes(factor * n % 255 for n in range(1, 255)) for factor in (7, 37, 101, 149, 211)),
)
"""Entropy-coded data that decodes to different pixels, with any Huffman table."""


def split_jpeg(data: bytes) -> SplitImage:
    """Drop comments and application segments of a JPEG, except those that define its colours."""
    view, kept = memoryview(data), [memoryview(data)[:2]]
    others: list[tuple[int, bytes]] = []
    scan = 2
    for marker, start, scan in _segments(data):
        body = data[start + 4 : scan]
        application = _APP0 <= marker <= _APP15 or marker == _COMMENT
        if not application or _defines_colours(marker, body):
            kept.append(view[start:scan])
        if application:
            others.append((marker, body))
    kept.append(view[scan:])
    metadata = _jpeg_metadata(others)
    profiles: dict[tuple[int, int], bytes] = {}
    for body in _bodies(others, _APP0 + 2, _ICC):
        if len(body) > 2:
            profiles.setdefault((body[0], body[1]), body[2:])
    return SplitImage(b"".join(kept), orientation_of(metadata.exif), _joined(profiles), metadata)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment before the first scan or damage."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4])
        if marker == 0xFF:  # padding
            start += 1
            continue
        end = start + 2 + length
        if marker < 0xC0 or 0xD0 <= marker <= _SCAN or length < 2 or end > len(data):
            break
        yield marker, start, end
        start = end


def complete_jpeg(data: bytes) -> bytes:
    """Return the content of a JPEG, with an end marker if only that is missing.

    Pillow refuses files without one, which some cameras write. A decoder continues with any data
    behind a scan that is cut short, so the last scan is complete if the pixels do not depend on
    that data.

    Args:
        data: Content of the file; its number of pixels must be acceptable.
    """
    frame, interval, scan = b"", 0, 2
    for marker, start, scan in _segments(data):
        if marker in _FRAMES:
            frame = data[start:scan]
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(data[start + 4 : scan])
    if data.find(_END, scan) >= 0 or not frame or not data.startswith(_START_OF_SCAN, scan):
        return data
    try:
        scans = _scans(data, scan)
        if not _cover_all_coefficients(scans, frame[10::3]):
            return data
        # Decoders skip data of an interval whose restart marker is missing.
        restarts = len(_RESTART.findall(data, scan))
        if interval and (len(scans) > 1 or restarts != _restarts(frame, interval)):
            return data
        decoded = {
            hashlib.sha256(JpegImageFile(BytesIO(data + filler + _END)).tobytes()).digest()
            for filler in _FILLERS
        }
    except (OSError, ValueError, IndexError):
        return data
    return data + _END if len(decoded) == 1 else data


def _scans(data: bytes, start: int) -> list[tuple[bytes, int, int, int]]:
    """Return components, first and last coefficient, and missing low bits of each scan."""
    found = []
    while start >= 0:
        end = start + 5 + 2 * data[start + 4]
        first, last, bits = data[end : end + 3]
        found.append((data[start + 5 : end : 2], first, last, bits & 15))
        start = data.find(_START_OF_SCAN, end)
    return found


def _cover_all_coefficients(
    scans: Sequence[tuple[bytes, int, int, int]], components: bytes
) -> bool:
    """Return whether scans hold all bits of all coefficients of all components."""
    complete: set[tuple[int, int]] = set()
    for names, first, last, missing in scans:
        if missing == 0:
            complete |= {(name, number) for name in names for number in range(first, last + 1)}
    return {(name, number) for name in components for number in range(64)} <= complete


def _restarts(frame: bytes, interval: int) -> int:
    """Return the number of restart markers in a complete scan, given the frame's header."""
    height, width, components = struct.unpack_from(">HHB", frame, 5)
    # In a scan of one component, every block is a unit, whatever its sampling factors are.
    factors = frame[11::3] if components > 1 else b"\x11"
    across = -(-width // (8 * max(factor >> 4 for factor in factors)))
    down = -(-height // (8 * max(factor & 15 for factor in factors)))
    return -(-across * down // interval) - 1


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
            unit_name: DensityUnit = "inch" if unit in (1, 2) else "none"
            density = valid_density(per_inch * x, per_inch * y, unit_name)
    return Metadata(
        exif=strip_exif_prefix(exif),
        xmp=xmp or None,
        photoshop=b"".join(_bodies(segments, _APP0 + 13, PHOTOSHOP)) or None,
        comments=tuple(body for kind, body in segments if kind == _COMMENT and body),
        density=density,
    )


def _defines_colours(marker: int, body: bytes) -> bool:
    """Return whether a segment defines how colours are stored, and is complete."""
    if marker == _APP0:
        return body.startswith(b"JFIF\0") and len(body) >= _JFIF_BYTES
    return marker == _APP0 + 14 and body.startswith(b"Adobe") and len(body) >= _ADOBE_BYTES


def _joined(profiles: dict[tuple[int, int], bytes]) -> bytes | None:
    """Join a profile from its numbered parts; None if one is missing."""
    counts = {count for _, count in profiles}
    if len(counts) != 1 or {number for number, _ in profiles} != set(range(1, max(counts) + 1)):
        return None
    return usable_profile(b"".join(profiles[key] for key in sorted(profiles)))
