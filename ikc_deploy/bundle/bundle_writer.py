"""Writing of whole bundles that never overwrite anything but a bundle.

A bundle is always replaced as a whole, also where only an engine or a manifest's field is new. If
the process is killed, the old or the new bundle remains, without unlisted files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Final

from ikc_deploy.bundle.manifest import Bundle, copy_verified, listed_files
from ikc_deploy.files import atomic_folder, check_folder, restore
from ikc_deploy.locks import locked

KIND: Final = "a bundle"


def check_bundle_folder(path: str | PathLike[str]) -> None:
    """Refuse a path where no bundle can be written, or where one would replace something else.

    Args:
        path: The bundle folder.

    Raises:
        OutputError: `path` is neither absent nor empty nor a bundle whose manifest lists all files
            in it, or cannot be written.
    """
    check_folder(path, listed_files, KIND)


@contextmanager
def new_bundle(path: str | PathLike[str]) -> Iterator[Path]:
    """Hold the lock of the bundle `path` and yield an empty folder that becomes it at the end.

    Args:
        path: The bundle folder to create or replace.

    Yields:
        The empty folder. The block writes all files into it and seals it with `write_manifest`.

    Raises:
        OutputError: As `check_bundle_folder`, before anything is written, or the lock cannot be
            acquired. Then, as after a kill, `path` is unchanged.
    """
    check_bundle_folder(path)
    with locked(path), atomic_folder(path, listed_files, KIND) as folder:
        yield folder


@contextmanager
def changed_bundle(path: str | PathLike[str]) -> Iterator[tuple[Bundle, Path]]:
    """Hold the lock of a bundle; yield it and a copy of its files that replaces it at the end.

    Args:
        path: The bundle folder.

    Yields:
        The opened bundle, and a folder with a copy of its files. The copy has no manifest: the
        block seals it with `write_manifest`.

    Raises:
        BundleError: The bundle is missing or damaged.
        OutputError: As `new_bundle`.
    """
    Bundle.open(path)
    check_bundle_folder(path)
    with locked(path):
        restore(path)
        bundle = Bundle.open(path)
        with atomic_folder(path, listed_files, KIND) as folder:
            copy_verified(bundle, bundle.files, folder)
            yield bundle, folder
