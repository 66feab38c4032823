"""What FFmpeg and the file system say when something fails, as errors of this project."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av

from ikc_deploy.errors import DiskFullError, VideoError

FAILURES: Final = (av.FFmpegError, OSError, ValueError)
"""What PyAV raises when FFmpeg or the file system refuses."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors in the block become `DiskFullError` or `VideoError`, naming `path`."""
    try:
        yield
    except FAILURES as error:
        if no_room(error):
            raise DiskFullError(
                f"no room for '{path}' ({reason_of(error)}); make some, and go on with --resume"
            ) from error
        hint = "; choose a shorter name" if _errno(error) == errno.ENAMETOOLONG else ""
        raise VideoError(f"'{path}' cannot be written: {reason_of(error)}{hint}") from error


def no_room(error: BaseException) -> bool:
    """True if the disk, a quota or a limit on file sizes is why."""
    return _errno(error) in _NO_ROOM


def reason_of(error: BaseException) -> str:
    """What went wrong, with FFmpeg's own words where `explained` caught them."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log = getattr(error, "log", None)
    return f"{said} ({log[2].strip()})" if log and log[2].strip() else str(said)


@contextmanager
def explained() -> Iterator[None]:
    """Errors of FFmpeg's in the block carry the last line that it logged.

    Not around codecs that have threads: PyAV's log needs the interpreter's lock, and waits for it.
    """
    before = av.logging.get_level()
    if before is None:
        # Nothing is this grave, so nothing is printed; errors are kept all the same.
        av.logging.set_level(av.logging.PANIC)
    try:
        yield
    finally:
        av.logging.set_level(before)


def _errno(error: BaseException) -> int | None:
    return getattr(error, "errno", None)
