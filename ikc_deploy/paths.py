"""Whether an output can be written where it is asked for: known before hours of work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ikc_deploy.errors import InputError

_NAME_BYTES: Final = 255
"""What file systems take for a name, where they do not say."""


def check_output_file(path: Path) -> None:
    """Raise `InputError` if no file can be written at `path`, as far as that shows now.

    Its folder need not exist. Nothing is written.
    """
    text = str(path)
    if "\0" in text:
        raise InputError(f"{text!r} is no name of a file: it holds a NUL")
    place = _existing(path.absolute().parent)
    if not place.is_dir():
        raise InputError(f"'{path}' cannot be written: '{place}' is no folder")
    longest = _longest_name(place)
    for name in path.absolute().relative_to(place).parts:
        size = len(os.fsencode(name))
        if size > longest:
            raise InputError(
                f"'{path}' cannot be written: a name of {size} bytes is too long, and {longest} "
                f"are the most in '{place}'; choose a shorter one"
            )
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"'{path}' cannot be written: '{place}' is read-only for this user")
    if path.is_dir():
        raise InputError(f"'{path}' cannot be written: it is a folder")


def _existing(folder: Path) -> Path:
    """The nearest folder (or file) at or above `folder` that is there."""
    for place in (folder, *folder.parents):
        try:
            if place.exists():
                return place
        except OSError:
            # A name that is too long, or a place that must not be looked into.
            continue
    return folder


def _longest_name(place: Path) -> int:
    try:
        return os.pathconf(place, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _NAME_BYTES
