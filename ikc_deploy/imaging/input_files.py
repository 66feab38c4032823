"""Search for input files: files among the inputs, and in folders, in natural order.

Every entry of a folder that is skipped is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

from ikc_deploy.errors import InputError
from ikc_deploy.files import real_path
from ikc_deploy.imaging.suffixes import READABLE_SUFFIXES

_FOLDERS: Final = "folders (name them as inputs to include them)"

_NAMED: Final = 5
"""Maximum number of entries named for each reason; the others are counted."""


@dataclass(frozen=True)
class Listing:
    """The entries of a folder (not of its subfolders), in natural order: 1, 2, 10."""

    folder: Path
    """The folder that was listed."""
    found: tuple[Path, ...]
    """Files with one of the requested suffixes."""
    skipped: dict[str, tuple[Path, ...]]
    """All other entries, by the reason why they are skipped."""

    def notes(self) -> list[str]:
        """Return one line for each reason, with the names of the skipped entries."""
        return [
            f"skipped in '{self.folder}', {reason}: {join_names(paths)}"
            for reason, paths in self.skipped.items()
        ]


def list_folder(
    folder: str | PathLike[str], suffixes: Sequence[str] = READABLE_SUFFIXES, what: str = "images"
) -> Listing:
    """List the files in a folder whose names end in one of `suffixes`.

    Hidden files are skipped: `._photo.png`, which macOS leaves on other file systems, is not a
    photograph.

    Args:
        folder: The folder to list; its subfolders are not searched.
        suffixes: File name endings in lower case, with the dot; the case of names is ignored.
        what: The word for such files in messages.

    Raises:
        InputError: The folder does not exist or has no such file.
    """
    root = Path(folder)
    _require_folder(root)
    found: list[Path] = []
    skipped: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir(), key=natural_order):
        reason = _reason(path, suffixes)
        if reason is None:
            found.append(path)
        else:
            skipped.setdefault(reason, []).append(path)
    listing = Listing(root, tuple(found), {why: tuple(paths) for why, paths in skipped.items()})
    if not found:
        there = "".join(f"; {note}" for note in listing.notes())
        raise InputError(f"the folder '{root}' has no {what} ({', '.join(suffixes)}){there}")
    return listing


def _require_folder(root: Path) -> None:
    if root.is_file():
        raise InputError(f"'{root}' is a file; give the folder that it is in")
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}'")


def list_tree(
    folder: str | PathLike[str],
    suffixes: Sequence[str] = READABLE_SUFFIXES,
    what: str = "images",
    leave_out: Path | None = None,
) -> list[Listing]:
    """List a folder and all its subfolders that are not hidden, in natural order.

    Links to folders are not followed.

    Args:
        folder: The folder to list.
        suffixes: As `list_folder`.
        what: As `list_folder`.
        leave_out: A folder that is not searched, for example that of the outputs; None for none.

    Raises:
        InputError: The folder does not exist, or has no such file on any level.
    """
    root = Path(folder)
    _require_folder(root)
    excluded = None if leave_out is None else real_path(leave_out)
    listings = list(_walk(root, suffixes, excluded))
    if not any(listing.found for listing in listings):
        raise InputError(
            f"the folder '{root}' and its subfolders have no {what} ({', '.join(suffixes)})"
        )
    return listings


def _walk(folder: Path, suffixes: Sequence[str], excluded: Path | None) -> Iterator[Listing]:
    found, inner, skipped = [], [], dict[str, list[Path]]()
    for path in sorted(folder.iterdir(), key=natural_order):
        reason = _reason(path, suffixes)
        if reason == _FOLDERS:
            if path.is_symlink():
                reason = "links to folders"
            elif real_path(path) == excluded:
                reason = "the folder of the outputs"
            else:
                inner.append(path)
                continue
        if reason is None:
            found.append(path)
        else:
            skipped.setdefault(reason, []).append(path)
    yield Listing(folder, tuple(found), {why: tuple(paths) for why, paths in skipped.items()})
    for path in inner:
        yield from _walk(path, suffixes, excluded)


def natural_order(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Return the key that sorts names as people number them: 1, 2, 10."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [(0, int(p)) if p.isdecimal() and p.isascii() else (1, p) for p in parts], path.name


def list_images(folder: str | PathLike[str]) -> list[Path]:
    """Return the image files in a folder (not in its subfolders, not hidden), in natural order.

    Raises:
        InputError: The folder does not exist or has no image file.
    """
    return list(list_folder(folder).found)


def _reason(path: Path, suffixes: Sequence[str]) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return _FOLDERS
    if not path.is_file():
        return "broken links or special files"
    if path.suffix.lower() not in suffixes:
        return "other formats, by their suffix"
    return None


def join_names(paths: Sequence[Path]) -> str:
    """Return the names of the first few paths, and the number of the others."""
    named = ", ".join(path.name for path in paths[:_NAMED])
    rest = len(paths) - _NAMED
    return named if rest <= 0 else f"{named} and {rest} more"


def find_files(
    inputs: Sequence[Path],
    suffixes: Sequence[str] = READABLE_SUFFIXES,
    one: str = "image",
    several: str = "images",
    *,
    recursive_to: Path | None = None,
) -> dict[Path, Path]:
    """Return the files among the inputs, each with the subfolder of its output.

    Files are in the order of the inputs, those of a folder in natural order: 1, 2, 10. The same
    file given twice counts once.

    Args:
        inputs: Files of any suffix, and folders, in which the files with `suffixes` are found.
        suffixes: File name endings in lower case, with the dot.
        one: The word for such a file in messages.
        several: The word for such files in messages.
        recursive_to: The output folder, to search subfolders except this one; None to search none.

    Raises:
        InputError: An input does not exist or a folder has no such file.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for path in inputs:
        if not path.exists():
            raise InputError(f"there is no {one} or folder '{path}'{missing_hint(path)}")
        if not path.is_dir():
            files = [(path, Path())]
        elif recursive_to is None:
            files = [(file, Path()) for file in list_folder(path, suffixes, several).found]
        else:
            files = [
                (file, listing.folder.relative_to(path))
                for listing in list_tree(path, suffixes, several, leave_out=recursive_to)
                for file in listing.found
            ]
        for file, place in files:
            found.setdefault(file.absolute(), (file, place))
    return dict(found.values())


def missing_hint(path: Path) -> str:
    """Return what to do about a name that looks like an address or a pattern; else nothing."""
    name = str(path)
    # A path has a single slash where the address had two.
    if re.match(r"[a-z][a-z0-9+.-]+:/", name, re.IGNORECASE):
        return "; it looks like an address: download it first, or give a stream with --camera"
    if re.search(r"%0?\d{0,2}d|[*?]", name):
        return "; it looks like a pattern: give the folder of the files"
    return ""
