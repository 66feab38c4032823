"""Files that are either whole or absent: written to a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Final

_LONGEST_NAME: Final = 143
"""Bytes that every file system takes for a name, encrypted ones too."""


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` if the block succeeds.

    The temporary name keeps the suffix, from which image and video writers take the format.
    Parent folders are made. If the block raises, `path` is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(_temporary_name(target))
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_name(target: Path) -> str:
    """Hidden, with the target's suffix, and no longer than the target's name if that is long."""
    tail = f".{secrets.token_hex(4)}{target.suffix}"
    # A name may have 255 bytes, and a character up to four.
    room = max(0, _LONGEST_NAME - len(os.fsencode(tail)) - 1)
    stem = os.fsencode(target.stem)[:room].decode("utf-8", "ignore")
    return f".{stem}{tail}"


def write_atomically(path: str | PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_folder(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces `path` if the block succeeds."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        _replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, target: Path) -> None:
    # A folder cannot be renamed over a full one, so the old one steps aside first.
    if not target.exists():
        new.replace(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.replace(aside / "old")
    try:
        new.replace(target)
    except OSError:
        (aside / "old").replace(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def sha256_file(path: str | PathLike[str]) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
