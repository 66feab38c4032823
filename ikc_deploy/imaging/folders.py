"""Listing of the image files in a folder, with the reason why each other entry is skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

from ikc_deploy.errors import InputError

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Suffixes of the image files that are listed from folders and that can be written."""

_NAMED: Final = 5
"""Maximum number of entries named for each reason; the others are counted."""


@dataclass(frozen=True)
class Listing:
    """The entries of a folder (not of its subfolders), sorted by name."""

    folder: Path
    """The folder that was listed."""
    found: tuple[Path, ...]
    """Files with one of the requested suffixes."""
    skipped: dict[str, tuple[Path, ...]]
    """All other entries, by the reason why they are skipped."""

    def notes(self) -> list[str]:
        """Return one line for each reason, with the names of the skipped entries."""
        return [
            f"skipped in '{self.folder}', {reason}: {_names(paths)}"
            for reason, paths in self.skipped.items()
        ]


def list_folder(
    folder: str | PathLike[str], suffixes: Sequence[str] = IMAGE_SUFFIXES, what: str = "images"
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
    """Return the image files in a folder (not in its subfolders, not hidden), sorted by name.

    Raises:
        InputError: The folder does not exist or has no image file.
    """
    return list(list_folder(folder).found)


def _reason(path: Path, suffixes: Sequence[str]) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "folders (name them as inputs to include them)"
    if not path.is_file():
        return "broken links or special files"
    if path.suffix.lower() not in suffixes:
        return f"suffix is not one of {', '.join(suffixes)}"
    return None


def _names(paths: Sequence[Path]) -> str:
    named = ", ".join(path.name for path in paths[:_NAMED])
    rest = len(paths) - _NAMED
    return named if rest <= 0 else f"{named} and {rest} more"
