"""Conversion of failures of FFmpeg and the file system to errors of this package."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av

from ikc_deploy.errors import DiskFullError, VideoError

FAILURES: Final = (av.FFmpegError, OSError, ValueError)
"""Exceptions that PyAV raises for failures of FFmpeg and the file system."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert errors in the block to `DiskFullError` or `VideoError`, which name `path`."""
    try:
        yield
    except FAILURES as error:
        if no_room(error):
            raise DiskFullError(
                f"no room for '{path}' ({reason_of(error)}); free some space, then use --resume"
            ) from error
        hint = "; choose a shorter name" if _errno(error) == errno.ENAMETOOLONG else ""
        raise VideoError(f"'{path}' cannot be written: {reason_of(error)}{hint}") from error


def no_room(error: BaseException) -> bool:
    """Return whether an error was caused by a full disk, a quota or a limit on file sizes."""
    return _errno(error) in _NO_ROOM


def reason_of(error: BaseException) -> str:
    """Return the reason of an error, with FFmpeg's log line if `explained` recorded it."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log = getattr(error, "log", None)
    return f"{said} ({log[2].strip()})" if log and log[2].strip() else str(said)


@contextmanager
def explained() -> Iterator[None]:
    """Attach the last line that FFmpeg logged to its errors in the block.

    Do not use around codecs with threads: PyAV's logging waits for the interpreter lock.
    """
    before = av.logging.get_level()
    if before is None:
        # At this level nothing is printed, but errors are still recorded.
        av.logging.set_level(av.logging.PANIC)
    try:
        yield
    finally:
        av.logging.set_level(before)


def _errno(error: BaseException) -> int | None:
    return getattr(error, "errno", None)
