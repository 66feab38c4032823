"""The files of a bundle: their records of size and checksum, and how they are opened and verified.

Nothing outside of the bundle's folder is opened, whatever a manifest or a link names.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from ikc_deploy.errors import BundleError
from ikc_deploy.files import sha256_file
from ikc_deploy.text import printable

_MAX_FILE: Final = 2**40
EXPORT_AGAIN: Final = "export it again with ikc-export, or copy the folder again"
"""End of messages about damaged bundles."""


@dataclass(frozen=True)
class FileRecord:
    """Size and checksum of one file of a bundle.

    Raises:
        ValueError: The size is out of range.
    """

    bytes: int
    """Size in bytes."""
    sha256: str
    """Checksum, in hex."""

    def __post_init__(self) -> None:
        """Require a size in bytes in the range of the format."""
        if not 0 <= self.bytes <= _MAX_FILE:
            raise ValueError(f"bytes must lie in [0, {_MAX_FILE}], got {self.bytes}")


def record_files(folder: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """Return size and checksum of files that were just written into `folder`, by their path."""
    return {
        name: FileRecord((folder / name).stat().st_size, sha256_file(folder / name))
        for name in names
    }


def read_verified(folder: Path, name: str, record: FileRecord) -> bytes:
    """Return the content of a file of the bundle `folder`.

    Raises:
        BundleError: The file is missing, or differs from its record.
    """
    path = folder / name
    try:
        with open_listed(folder, name) as file:
            _check_size(path, file, record)
            # Read at most one byte more than recorded: the file may grow meanwhile.
            data = file.read(record.bytes + 1)
    except _MissingError as error:
        raise BundleError(f"'{path}' cannot be read: it is gone; {EXPORT_AGAIN}") from error
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise BundleError(f"'{path}' was altered: its checksum differs; {EXPORT_AGAIN}")
    return data


def verify_file(folder: Path, name: str, record: FileRecord) -> None:
    """Compare a file of the bundle `folder` with its record, without keeping it in memory.

    Raises:
        BundleError: The file is missing, or differs from its record.
    """
    with open_listed(folder, name) as file:
        _check_size(folder / name, file, record)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != record.sha256:
        raise BundleError(f"'{folder / name}' was altered: its checksum differs; {EXPORT_AGAIN}")


def _check_size(path: Path, file: BufferedReader, record: FileRecord) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != record.bytes:
        raise BundleError(
            f"'{path}' has {size} bytes and should have {record.bytes}: it was cut short or "
            f"replaced; {EXPORT_AGAIN}"
        )


def open_listed(folder: Path, name: str) -> BufferedReader:
    """Open a regular file of a bundle; links are followed as long as they stay inside.

    Raises:
        BundleError: There is no such file, it lies outside, or it cannot be read.
    """
    path = folder / name
    try:
        root = folder.resolve(strict=True)
        target = path.resolve(strict=True)
    except FileNotFoundError:
        raise _missing(folder, name) from None
    except (OSError, RuntimeError) as error:
        # A loop of links is one or the other, by the version of Python.
        raise BundleError(f"'{path}' cannot be read: {error}; {EXPORT_AGAIN}") from error
    if not target.is_relative_to(root):
        raise outside_bundle(folder, name)
    # Do not wait for the writer of a named pipe, and do not follow a link that was placed just now.
    flags = os.O_RDONLY
    for flag in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, flag, 0)
    try:
        handle = os.open(target, flags)
    except OSError as error:
        raise BundleError(f"'{path}' cannot be read: {error.strerror}; {EXPORT_AGAIN}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _missing(folder, name)
    return os.fdopen(handle, "rb")


class _MissingError(BundleError):
    """A listed file that is missing."""


def _missing(folder: Path, name: str) -> _MissingError:
    return _MissingError(f"'{folder}' lacks '{name}', which its manifest lists; {EXPORT_AGAIN}")


def outside_bundle(folder: Path, name: str) -> BundleError:
    """Return the error for a file that a manifest names outside of its bundle."""
    return BundleError(
        f"the manifest of '{folder}' names '{printable(name)}', which lies outside the bundle; "
        "do not use it unless you trust its source"
    )
