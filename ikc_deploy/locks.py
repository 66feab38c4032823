"""Who may write a folder: one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from filelock import FileLock


@contextmanager
def locked(path: str | PathLike[str]) -> Iterator[None]:
    """Hold the lock of `path` (a hidden file beside it, which stays) or wait for it.

    The thread that holds it may take it again. Every writer of a bundle takes the bundle's lock;
    readers need none, as bundles are replaced and sealed by renaming.
    """
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock"), is_singleton=True):
        yield
