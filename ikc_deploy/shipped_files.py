"""Lookup of shipped engine targets and training recipes by name, in a checkout or a wheel."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_INSTALLED_BELOW: Final = "ikc-deploy"
"""Folder below `share` of the environment; see `data_files` in setup.cfg."""


def shipped_files(folder: str) -> dict[str, Path]:
    """Return the TOML files of a folder of the repository by name.

    They are in the root folder of a checkout, or part of the installed distribution.

    Args:
        folder: "engines" or "training".

    Returns:
        The paths by file name without its suffix.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "setup.cfg").is_file():
        found: Iterable[Path] = (checkout / folder).glob("*.toml")
    else:
        try:
            listed = importlib.metadata.files("ikc-deploy") or []
        except importlib.metadata.PackageNotFoundError:
            listed = []
        place = (_INSTALLED_BELOW, folder)
        installed = [entry for entry in listed if entry.parts[-3:-1] == place]
        # Resolved, because the paths in the listing lead through the folder of the package.
        found = (Path(str(entry.locate())).resolve() for entry in installed)
    return {path.stem: path for path in sorted(found) if path.suffix == ".toml"}


def find_shipped(path: Path, folder: str) -> Path:
    """Return `path` if it exists, else the shipped file of that name, else `path`."""
    return path if path.is_file() else shipped_files(folder).get(str(path), path)
