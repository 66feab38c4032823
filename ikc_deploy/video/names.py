"""What file names say: clip or picture, which container. Needs no PyAV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ikc_deploy.errors import VideoError
from ikc_deploy.imaging.image_io import IMAGE_SUFFIXES

PIPE: Final = Path("-")
"""Standard input or output."""

VIDEO_SUFFIXES: Final = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".nut", ".h264", ".h265", ".hevc", ".y4m"),
)
"""File name endings that are taken for clips."""

CONTAINERS: Final = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".ts": "mpegts",
    ".nut": "nut",
}
"""FFmpeg's name of the container for every suffix that is written."""

NUMBER: Final = re.compile(r"%0?\d{0,2}d(?![A-Za-z])")
"""The place for a number in a name, as `%06d`; none in "100%done"."""


def is_video(inputs: Sequence[Path], out: Path | None) -> bool:
    """True if these inputs and this output mean a stream of frames, not single pictures."""
    files = [path for path in inputs if not path.is_dir()]
    pictures = any(path.suffix.lower() in IMAGE_SUFFIXES for path in files)
    return (
        any(path == PIPE or path.suffix.lower() in VIDEO_SUFFIXES for path in files)
        or out == PIPE
        or (out is not None and out.suffix.lower() in CONTAINERS)
        # A picture by itself has one output, whatever that is called.
        or (out is not None and is_numbered(out) and not pictures)
    )


def is_numbered(path: Path) -> bool:
    """True if this names a row of pictures: it has their suffix and one place for a number."""
    return path.suffix.lower() in IMAGE_SUFFIXES and len(NUMBER.findall(path.name)) == 1


def container_of(path: Path) -> str:
    """FFmpeg's name of the container that `path` asks for by its suffix.

    Raises `VideoError` for a suffix that is not written.
    """
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        raise VideoError(
            f"'{path}' has no suffix of a video that can be written; "
            f"use one of {', '.join(CONTAINERS)}"
        ) from None
