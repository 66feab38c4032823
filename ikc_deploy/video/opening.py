"""Opening of media files by PyAV, so that no file name is read as a protocol or a pattern."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import av

from ikc_deploy.errors import UnreadableClipError
from ikc_deploy.video.write_errors import FAILURES, reason_of

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

# Option of FFmpeg's image demuxer, which otherwise reads "%03d.jpg" as a pattern of files.
_NAMES: Final = {"pattern_type": "none"}
_INDEXED: Final = (".mp4", ".m4v", ".mov", ".3gp")
"""Suffixes of containers that cannot be read without the index at their end."""

_LONGER_LOOK: Final = {"probesize": "50000000", "analyzeduration": "60000000"}
"""Limits in bytes and microseconds, for files where FFmpeg's 5 MB and 5 s do not suffice."""


def file_url(path: Path) -> str:
    """Return the URL of a file; FFmpeg reads "a:b.mp4" as a protocol and "-" as a pipe."""
    return f"file:{path}"


def open_input(
    source: Path | BinaryIO | str,
    name: str,
    container: str | None = None,
    options: Mapping[str, str] | None = None,
) -> InputContainer:
    """Open a media file for reading; tags that are not UTF-8 get replacement characters.

    Args:
        source: A path, a readable binary stream, or an address of FFmpeg.
        name: Name of the source for messages.
        container: FFmpeg's name of the demuxer; None to detect it.
        options: Options of the demuxer.

    Raises:
        UnreadableClipError: FFmpeg cannot open the source, or a path is that of a pipe or device.
    """
    if isinstance(source, Path):
        _refuse_device(source)
    address = file_url(source) if isinstance(source, Path) else source
    given = {**_NAMES, **(options or {})} if isinstance(source, Path) else dict(options or {})
    opened = _open(address, name, container, given)
    if isinstance(source, Path) and _unclear(opened):
        opened.close()
        opened = _open(address, name, container, given | _LONGER_LOOK)
    return opened


def _refuse_device(path: Path) -> None:
    """Refuse what has no end, or blocks until another process writes, or cannot be read again."""
    with suppress(OSError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UnreadableClipError(
                f"'{path}' is a pipe or a device, and a clip is a file; give a pipe as - with "
                "--raw, and a camera with --camera"
            )


def open_output(
    target: Path | BinaryIO, container: str, options: Mapping[str, str] | None = None
) -> OutputContainer:
    """Open a media file for writing in FFmpeg's format `container`; raise what PyAV raises."""
    address = file_url(target) if isinstance(target, Path) else target
    return av.open(address, "w", format=container, container_options=dict(options or {}))


def _open(
    source: BinaryIO | str, name: str, container: str | None, options: dict[str, str]
) -> InputContainer:
    try:
        return av.open(source, "r", format=container, options=options, metadata_errors="replace")
    except FAILURES as error:
        raise UnreadableClipError(
            f"'{name}' cannot be read as video: {_reason(source, error)}"
        ) from error


def _reason(source: BinaryIO | str, error: BaseException) -> str:
    """Return why a source cannot be opened, with the usual cause for its kind of file."""
    said = reason_of(error)
    path = Path(source.removeprefix("file:")) if isinstance(source, str) else None
    if path is None or not path.is_file():
        return said
    if path.stat().st_size == 0:
        return "the file is empty"
    if getattr(error, "errno", None) == errno.EPERM:
        return f"{said}; it is a list of other files, which are not opened: give the clip itself"
    if path.suffix.lower() in _INDEXED and isinstance(error, av.InvalidDataError):
        return (
            f"{said}; it is a file of another type, or its index, which is written last, is "
            "missing: copy or record it again, or repair it"
        )
    return said


def _unclear(container: InputContainer) -> bool:
    """Return whether FFmpeg found no parameters of an audio or video stream."""
    sound = any(
        stream.codec_context is not None and not stream.codec_context.sample_rate
        for stream in container.streams.audio
    )
    return sound or any(
        stream.codec_context is not None and not stream.codec_context.width
        for stream in container.streams.video
    )
