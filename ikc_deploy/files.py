"""Atomic outputs, complete or unchanged: written under a temporary name, then renamed.

A file is replaced by renaming. A folder is replaced by exchanging two names, in one step where the
system can. Where it cannot, the old folder is renamed first, and `restore` brings it back if the
process is killed between the two steps. During a write, and until the next one after a kill, these
lie beside a target `X`:

    .ikc-1a2b3c4d.png   the new file; abandoned once its lock is free, and then deleted
    .X.ikc-new          the new folder, or the old one before it is deleted
    .X.ikc-old          the old folder before the new one has its name

A folder is replaced only if nothing in it is lost: see `check_folder`.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Final

from ikc_deploy.errors import IkcError, OutputError

if sys.platform != "win32":
    import fcntl

Listed = Callable[[Path], Iterable[str]]
"""A function that returns the files that a folder's own record lists, as relative names with /.

It raises `IkcError` if the folder's record is missing or damaged.
"""

_TEMPORARY: Final = re.compile(r"\.ikc-[0-9a-f]{8}(\.\w{1,15})?")
_SUFFIX: Final = re.compile(r"\.\w{1,15}", re.ASCII)
_LONGEST_NAME: Final = 255
_NAMED: Final = 4
"""Maximum number of unexpected entries that a message names."""


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that becomes `path` if the block succeeds.

    The temporary file exists and is empty. It keeps the suffix, from which image and video writers
    take the format; the rest of its name is short and plain for any target. Parent folders are
    created, links are followed. If the block raises, `path` is unchanged.

    Args:
        path: The file to write or replace.

    Yields:
        The temporary path.

    Raises:
        OSError: The file cannot be created, or `path` is a folder or a device.
    """
    target = _regular(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(target.parent)
    temporary, held = _new_temporary(target)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        if held is not None:
            os.close(held)
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, completely or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_folder(
    path: str | PathLike[str], listed: Listed | None = None, kind: str = "a folder of this package"
) -> Iterator[Path]:
    """Yield a new folder that replaces `path` if the block succeeds. Hold the lock of `path`.

    The remains of a killed writer are removed first. Links are followed.

    Args:
        path: The folder to create or replace.
        listed: Reads which files may be replaced; None if only an empty folder may be.
        kind: Kind of the folders that `listed` reads, for messages, for example "a bundle".

    Yields:
        The new, empty folder.

    Raises:
        OutputError: `path` cannot be created, or has entries that would be lost (see
            `check_folder`). This is checked before the block and again after it; `path` is
            unchanged.
    """
    target = Path(os.path.realpath(path))
    new = hidden_sibling(target, ".ikc-new")
    restore(target)
    check_folder(target, listed, kind)
    with _output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
    try:
        yield new
        check_folder(target, listed, kind)
        with _output_errors(target):
            _replace_folder(new, target, listed, kind)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def restore(path: str | PathLike[str]) -> None:
    """Recover the folder `path` from a killed writer, and delete its remains. Hold its lock.

    Raises:
        OutputError: The file system refuses.
    """
    target = Path(os.path.realpath(path))
    with _output_errors(target):
        aside = hidden_sibling(target, ".ikc-old")
        if is_interrupted(target):
            aside.rename(target)
        for rest in (aside, hidden_sibling(target, ".ikc-new")):
            if os.path.lexists(rest):
                shutil.rmtree(rest)


def is_interrupted(path: str | PathLike[str]) -> bool:
    """Return whether `path` is missing because a writer was killed while it replaced the folder."""
    target = Path(os.path.realpath(path))
    if not target.name or os.path.lexists(target):
        return False
    return hidden_sibling(target, ".ikc-old").is_dir()


def check_folder(
    path: str | PathLike[str],
    listed: Listed | None = None,
    kind: str = "a folder of this package",
    *,
    whole: bool = True,
) -> None:
    """Refuse a folder that cannot be created, or in which something would be lost.

    Accepted are a missing folder, an empty folder, and a folder whose own record lists all of its
    entries. The check leaves no files.

    Args:
        path: The folder.
        listed: Reads the record; None if no folder has one.
        kind: Kind of the folders with such a record, for messages, for example "a bundle".
        whole: Whether the folder itself is replaced, not only files in it.

    Raises:
        OutputError: The folder is refused; the message states what is in the way and what to do.
    """
    check_name(path)
    folder = Path(os.path.realpath(path))
    with _output_errors(path):
        if not os.path.lexists(folder):
            _check_room(folder.parent, path)
            return
        if not folder.is_dir():
            raise OutputError(f"'{path}' is a file, which is not replaced; give a folder")
        if whole:
            _check_place(folder, path)
            _check_room(folder.parent, path)
        _check_room(folder, path)
        check_entries(folder, listed, kind)


def check_entries(folder: Path, listed: Listed | None, kind: str) -> None:
    """Refuse a folder with entries that its own record does not list.

    Args:
        folder: The folder.
        listed: Reads the record; None if no folder has one.
        kind: Kind of the folders with such a record, for messages.

    Raises:
        OutputError: There are such entries; the message names them.
    """
    if not unexpected_entries(folder, ()):
        return
    try:
        own = () if listed is None else listed(folder)
    except IkcError:
        own = ()
    strange = unexpected_entries(folder, own)
    if not strange:
        return
    named = ", ".join(repr(name) for name in strange[:_NAMED])
    more = f" and {len(strange) - _NAMED} more" if len(strange) > _NAMED else ""
    what = f"has entries that are not part of {kind}" if own else f"is not {kind} and not empty"
    raise OutputError(
        f"'{folder}' {what}: {named}{more}. Nothing was changed, as they would be lost; "
        "give another folder, or move them away"
    )


def unexpected_entries(folder: Path, listed: Iterable[str]) -> list[str]:
    """Return the entries of a folder that are not listed.

    Our temporary files, and compiled files of listed .py files, do not count.

    Args:
        folder: The folder.
        listed: Names of the expected files relative to it, with /.

    Returns:
        Relative names; those of folders end with /.
    """
    files = set(listed)
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    found: list[str] = []

    def visit(place: Path, prefix: str) -> None:
        with os.scandir(place) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            name = prefix + entry.name
            if not entry.is_dir(follow_symlinks=False):
                if name not in files and not _TEMPORARY.fullmatch(entry.name):
                    found.append(name)
            elif name in folders:
                visit(Path(entry.path), f"{name}/")
            elif not _is_compiled(Path(entry.path), prefix, files):
                found.append(f"{name}/")

    visit(folder, "")
    return found


def real_path(path: Path) -> Path:
    """Return a path without symbolic links; of a loop of links, the part that can be resolved.

    `Path.resolve` raises an exception for such a loop up to Python 3.12.
    """
    return Path(os.path.realpath(path))


def check_file(path: str | PathLike[str]) -> None:
    """Refuse a path at which no file can be written. The check leaves no files.

    Args:
        path: The file to write or replace.

    Raises:
        OutputError: The path is a folder or device, a name in it is too long, a file is where its
            folder should be, or the folder cannot be written.
    """
    check_name(path)
    with _output_errors(path):
        _check_room(_regular(path).parent, path)


def hidden_sibling(target: Path, ending: str) -> Path:
    """Return the hidden path `.NAME` + `ending` beside `target`, shortened if it is too long.

    Raises:
        OutputError: `target` is the root folder of a file system.
    """
    if not target.name:
        raise OutputError(f"'{target}' cannot be written to; give a folder in it")
    name, room = os.fsencode(target.name), _LONGEST_NAME - 1 - len(ending.encode())
    if len(name) > room:
        digest = hashlib.sha256(name).hexdigest()[:16].encode()
        name = name[: room - 17] + b"-" + digest
    return target.with_name(f".{os.fsdecode(name)}{ending}")


def sha256_file(path: str | PathLike[str]) -> str:
    """Return the sha256 of a file, in hex.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _output_errors(path: str | PathLike[str]) -> Iterator[None]:
    """Turn an error of the file system into an `OutputError` that names the output."""
    try:
        yield
    except OSError as error:
        where = f" ('{error.filename}')" if error.filename not in (None, str(path)) else ""
        reason = error.strerror or error
        raise OutputError(f"'{path}' cannot be written: {reason}{where}") from error


def check_name(path: str | PathLike[str]) -> None:
    """Refuse a path that no file system accepts.

    Raises:
        OutputError: A name in it is too long or contains NUL.
    """
    # The system notices such a name only once its parent folder exists.
    for name in Path(path).parts:
        if "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
            shown = name.replace("\0", "\\0")
            shown = shown if len(shown) < 40 else f"{shown[:24]}..."
            raise OutputError(
                f"invalid name '{shown}' for an output: use at most {_LONGEST_NAME} bytes "
                "and no NUL"
            )


def _check_room(folder: Path, path: str | PathLike[str]) -> None:
    """Refuse `path` if nothing can be created in `folder`; an unnamed file there is the test."""
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"'{path}' cannot be written: '{folder}' is a file, not a folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"'{path}' cannot be written: {reason} ('{folder}')") from error


def _check_place(folder: Path, path: str | PathLike[str]) -> None:
    if os.path.ismount(folder):
        raise OutputError(f"'{path}' is a mount point, which is not replaced; give a folder in it")
    if Path.cwd().is_relative_to(folder):
        raise OutputError(
            f"'{path}' is the current folder or around it, which is not replaced; "
            "give a folder in it"
        )


def _is_compiled(folder: Path, prefix: str, files: set[str]) -> bool:
    return folder.name == "__pycache__" and all(
        each.suffix == ".pyc" and f"{prefix}{each.name.split('.')[0]}.py" in files
        for each in folder.iterdir()
    )


def _regular(path: str | PathLike[str]) -> Path:
    """Return `path` with links followed; raise `OSError` if it exists and is not a file."""
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder; give a file in it", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return Path(os.path.realpath(path))


def _new_temporary(target: Path) -> tuple[Path, int | None]:
    """Create a temporary file beside `target`, and return its path and an open descriptor.

    The descriptor holds a lock while the file is in use. It is None where the system has no such
    locks; no temporary files are swept there.
    """
    suffix = target.suffix if _SUFFIX.fullmatch(target.suffix) else ""
    while True:
        path = target.with_name(f".ikc-{secrets.token_hex(4)}{suffix}")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        if sys.platform == "win32":
            os.close(descriptor)
            return path, None
        # Another process may have swept the file between the two calls; then try another name.
        if _takes_lock(descriptor, without_locks=True) and _is_open_at(descriptor, path):
            return path, descriptor
        os.close(descriptor)


@functools.lru_cache(maxsize=256)
def _sweep_once(folder: Path) -> None:
    """Delete the temporary files of killed writers, once for each folder in a process.

    Sweeping for each file would make the time to write n files quadratic in n.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                _sweep(entry.path)


def _sweep(path: str) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _takes_lock(descriptor, without_locks=False):
                Path(path).unlink()
        finally:
            os.close(descriptor)


def _takes_lock(descriptor: int, *, without_locks: bool) -> bool:
    """Return whether the lock of an open file was free; `without_locks` where there are none."""
    if sys.platform == "win32":
        return without_locks
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without_locks
    return True


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _replace_folder(new: Path, target: Path, listed: Listed | None, kind: str) -> None:
    """Move `new` to `target`; the old content of `target` is in `new` afterwards, or deleted."""
    if not target.exists():
        new.rename(target)
        return
    shutil.copymode(target, new)
    if exchange(new, target):
        try:
            # The old folder has lost its name, so that no more entries appear: check it last.
            check_entries(new, listed, kind)
        except OutputError:
            exchange(new, target)
            raise
        return
    aside = hidden_sibling(target, ".ikc-old")
    target.rename(aside)
    try:
        check_entries(aside, listed, kind)
        new.rename(target)
    except (OSError, OutputError):
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False if the system cannot.

    Only Linux can, and not on every file system.

    Raises:
        OSError: The system can, and refuses these paths.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    at_working_folder, swap = -100, 2
    arguments = (at_working_folder, os.fsencode(first), at_working_folder, os.fsencode(second))
    if rename(*arguments, swap) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(second))
