"""Which files of a folder are taken, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

from ikc_deploy.errors import InputError

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""File name endings that folders are searched for, and that can be written."""

_NAMED: Final = 5
"""Entries of a kind that are named; the others are counted."""


@dataclass(frozen=True)
class Listing:
    """What a folder holds (not what is below it), sorted by name."""

    folder: Path
    found: tuple[Path, ...]
    """The files that are taken."""
    skipped: dict[str, tuple[Path, ...]]
    """All other entries, by the reason why they are not."""

    def notes(self) -> list[str]:
        """A line for each reason, with the names that it is about."""
        return [
            f"skipped in '{self.folder}', {reason}: {_names(paths)}"
            for reason, paths in self.skipped.items()
        ]


def list_folder(
    folder: str | PathLike[str], suffixes: Sequence[str] = IMAGE_SUFFIXES, what: str = "images"
) -> Listing:
    """The files in a folder whose names end in one of `suffixes`, and what else is there.

    Hidden files are not taken: `._photo.png`, which macOS leaves on other file systems, is no
    photo. `what` is the word for such files in messages. Raises `InputError` if the folder is
    missing or holds none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}'")
    found: list[Path] = []
    skipped: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
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


def list_images(folder: str | PathLike[str]) -> list[Path]:
    """The image files in a folder (not below it, not hidden), sorted by name.

    Raises `InputError` if the folder is missing or holds none.
    """
    return list(list_folder(folder).found)


def _reason(path: Path, suffixes: Sequence[str]) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "folders (name them to have them done too)"
    if not path.is_file():
        return "broken links, or no files"
    if path.suffix.lower() not in suffixes:
        return f"of other kinds than {', '.join(suffixes)}"
    return None


def _names(paths: Sequence[Path]) -> str:
    named = ", ".join(path.name for path in paths[:_NAMED])
    rest = len(paths) - _NAMED
    return named if rest <= 0 else f"{named} and {rest} more"
