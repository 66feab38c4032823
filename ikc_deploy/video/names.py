"""Classification of file names: clip or image, and container. Does not need PyAV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

from ikc_deploy.errors import VideoError
from ikc_deploy.imaging.suffixes import READABLE_SUFFIXES, WRITABLE_SUFFIXES

Deinterlace = Literal["auto", "on", "off"]
"""Which frames are deinterlaced: those marked as interlaced, all, or none."""

PIPE: Final = Path("-")
"""Standard input or output."""

DEFAULT_RATE: Final = Fraction(25)
"""Frames per second where no source specifies them."""

VIDEO_SUFFIXES: Final = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".nut", ".h264", ".h265", ".hevc", ".y4m"),
)
"""Suffixes of files that are read as clips."""

CONTAINERS: Final = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".ts": "mpegts",
    ".nut": "nut",
}
"""FFmpeg's name of the container for each suffix that can be written."""

NUMBER: Final = re.compile(r"%0?\d{0,2}d(?![A-Za-z])")
"""Pattern of the place for a number in a name, such as `%06d`; no match in "100%done"."""


def is_stream(inputs: Sequence[Path], out: Path | None) -> bool:
    """Return whether inputs and output are one stream of frames, not files for a folder.

    Args:
        inputs: Files, folders and `PIPE`.
        out: The output; None if it is not given.
    """
    files = [path for path in inputs if not path.is_dir()]
    images = any(
        path.suffix.lower() in READABLE_SUFFIXES and not is_image_pattern(path) for path in files
    )
    clips = any(path.suffix.lower() in VIDEO_SUFFIXES for path in files)
    if PIPE in inputs or out == PIPE:
        return True
    if out is None:
        return clips
    if out.is_dir():
        return False
    return (
        out.suffix.lower() in CONTAINERS
        # A single image has one output, even if its name has a place for a number.
        or (is_numbered(out) and not images)
        # The name of a file that cannot be written: the request refuses it.
        or (clips and len(inputs) == 1 and out.suffix[1:2].isalpha())
    )


def is_image(path: Path) -> bool:
    """Return whether `path` is one image file, by its name."""
    return path.suffix.lower() in READABLE_SUFFIXES and not is_numbered(path)


def is_numbered(path: Path) -> bool:
    """Return whether `path` is a pattern of numbered images: image suffix, one number place."""
    return path.suffix.lower() in WRITABLE_SUFFIXES and len(NUMBER.findall(path.name)) == 1


def is_image_pattern(path: Path) -> bool:
    """Return whether `path` is a pattern of numbered images to read, and not a file itself."""
    readable = path.suffix.lower() in READABLE_SUFFIXES
    return readable and len(NUMBER.findall(path.name)) == 1 and not path.exists()


def container_of(path: Path) -> str:
    """Return FFmpeg's name of the container for the suffix of `path`.

    Raises:
        VideoError: Files with this suffix cannot be written.
    """
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        raise VideoError(
            f"invalid video suffix in '{path}': use one of {', '.join(CONTAINERS)}"
        ) from None
