"""What FFmpeg and the file system say when writing fails, as errors of this project."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av

from ikc_deploy.errors import DiskFullError, VideoError

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors in the block become `DiskFullError` or `VideoError`, naming `path`."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if error.errno in _NO_ROOM:
            raise DiskFullError(
                f"no room for '{path}' ({error.strerror}); make some, and go on with --resume"
            ) from error
        raise VideoError(f"'{path}' cannot be written: {error.strerror or error}") from error
