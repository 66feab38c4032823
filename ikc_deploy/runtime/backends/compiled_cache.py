"""A folder of compiled models and small results, which can be computed again.

Every entry has a checksum in front of its content: a damaged compiled model would not fail, but
compute wrong images. Entries are written under a temporary name and renamed. The entries that were
not used for the longest time are deleted once the folder exceeds its size, because frames of any
size may arrive, and every size needs models of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ikc_deploy.files import write_atomically

MAX_BYTES: Final = 2**30
"""Default maximum size of a cache in bytes: some hundred models of the small weights."""

_SUFFIX: Final = ".compiled"
_CHECKSUM_BYTES: Final = 32


class CompiledCache:
    """A cache in a folder, which is created when the first entry is written.

    Args:
        folder: The folder.
        max_bytes: Maximum size of all entries together; the entry just written always stays.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def load(self, key: Mapping[str, object]) -> bytes | None:
        """Return the content of an entry; None if it is missing, damaged or not readable."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            # The time of the last use decides what is deleted first.
            os.utime(path)
        except OSError:
            return None
        checksum, content = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
        return content if hashlib.sha256(content).digest() == checksum else None

    def store(self, key: Mapping[str, object], content: bytes) -> None:
        """Write or replace an entry; warn if the folder cannot be written.

        Args:
            key: Everything on which the content depends; the values can be written as JSON.
            content: The content.
        """
        path = self._path(key)
        try:
            write_atomically(path, hashlib.sha256(content).digest() + content)
        except OSError as error:
            warnings.warn(
                f"compiled models are not kept in '{self._folder}': {error.strerror or error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self._trim(path)

    def _path(self, key: Mapping[str, object]) -> Path:
        text = json.dumps(key, sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{_SUFFIX}"

    def _trim(self, newest: Path) -> None:
        entries: list[tuple[float, int, Path]] = []
        # Another process may delete the same entries.
        with suppress(OSError):
            for path in self._folder.glob(f"*{_SUFFIX}"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                return
            if path != newest:
                with suppress(OSError):
                    path.unlink()
                total -= size
