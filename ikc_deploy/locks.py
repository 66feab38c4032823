"""Locks of outputs: one process writes at a time, and the others log for which one they wait."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ikc_deploy.errors import OutputError
from ikc_deploy.files import check_name, hidden_sibling

LOCK_SECONDS: Final = 3600.0
"""Default maximum wait of `locked` in seconds; compiling engines takes the longest."""

_MAX_SAID: Final = 4096
_LOG = logging.getLogger(__name__)


@contextmanager
def locked(path: str | PathLike[str], seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of `path` (a hidden file beside it, which stays) or wait for it.

    The thread that holds it may take it again. Every writer of a bundle takes the bundle's lock;
    readers need none, as bundles are replaced and sealed by renaming. A waiting process logs one
    warning that names the holder; it goes to standard error unless logging is configured otherwise.

    Args:
        path: The guarded path; it need not exist. Its parent folders are created.
        seconds: Maximum wait in seconds; 0 does not wait.

    Raises:
        OutputError: The lock file cannot be created (raised without waiting), or another process
            still holds the lock.
    """
    check_name(path)
    target = Path(os.path.realpath(path))
    file = hidden_sibling(target, ".lock")
    _make(file, path)
    lock = FileLock(file, is_singleton=True)
    _acquire(lock, file, path, seconds)
    try:
        _write_holder(file, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        if lock.lock_counter == 1:
            _write_holder(file, None)
        lock.release()


def _make(file: Path, path: str | PathLike[str]) -> None:
    """Create the lock file: `FileLock` mistakes some errors for a lock that is held, and waits."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o666))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"'{path}' cannot be written: its lock '{file}' cannot be created ({reason}); "
            "choose another folder"
        ) from error


def _acquire(lock: FileLock, file: Path, path: str | PathLike[str], seconds: float) -> None:
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if seconds <= 0:
                raise
            _LOG.warning(
                "waiting for %s, which is writing '%s' (its lock is '%s')",
                *(_holder(file), path, file),
            )
            lock.acquire(timeout=seconds, poll_interval=0.1)
    except Timeout:
        waited = f", also after {seconds:g} seconds" if seconds > 0 else ""
        raise OutputError(
            f"'{path}' is being written by {_holder(file)}{waited}; wait for it, or stop it"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"'{path}' cannot be locked with '{file}': {reason}") from error


def _holder(file: Path) -> str:
    """Return who holds a lock, as far as its file specifies."""
    try:
        with open(file, "rb") as opened:
            holder = json.loads(opened.read(_MAX_SAID))
        return f"process {int(holder['pid'])} on {str(holder['host'])!r}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def _write_holder(file: Path, holder: dict[str, object] | None) -> None:
    # Only for the warning of waiting processes; some systems cannot write to a locked file.
    with suppress(OSError):
        file.write_text("" if holder is None else json.dumps(holder))
