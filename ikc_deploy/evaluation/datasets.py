"""Folders of HR images, checked before anything is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.files import real_path
from ikc_deploy.imaging.degrade import crop_to_multiple
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.runtime.frames import MIN_SIDE


@dataclass(frozen=True)
class Dataset:
    """A named set of HR images."""

    name: str
    """Name of the folder."""
    paths: tuple[Path, ...]
    """Image files in the order of measurement."""

    @classmethod
    def open(cls, folder: Path, scale: int) -> Dataset:
        """Return the dataset of a folder, named like the folder.

        Every image is decoded once to check that it can be measured.

        Args:
            folder: Folder of HR images.
            scale: Scale factor that the images are measured at.

        Raises:
            InputError: The folder or an image is unusable; the message names it.
        """
        paths = tuple(list_images(folder))
        for path in paths:
            read_hr(path, scale)
        return cls(real_path(folder).name, paths)


def open_datasets(folders: Sequence[Path], scale: int) -> list[Dataset]:
    """Open a dataset for every folder.

    Raises:
        InputError: There is no folder, two folders have the same name, or a folder or image is
            unusable.
    """
    if not folders:
        raise InputError("nothing to measure; give a folder of HR images")
    refuse_equal_names(folders)
    return [Dataset.open(folder, scale) for folder in folders]


def refuse_equal_names(folders: Sequence[Path]) -> None:
    """Raise `InputError` if two folders have the same name, by which their results are listed."""
    names = [real_path(folder).name for folder in folders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"two folders are named '{twice}', so their results cannot be distinguished; rename "
            "one, or give it to another run"
        )


def read_hr(path: Path, scale: int) -> NDArray[np.uint8]:
    """Read an HR image and crop its sides to multiples of `scale`.

    Returns:
        RGB `[H,W,3]` uint8.

    Raises:
        InputError: `path` cannot be read, or its LR image would be too small.
    """
    image = read_rgb(path)
    smallest = scale * MIN_SIDE
    if min(image.shape[:2]) < smallest:
        raise InputError(
            f"'{path}' has {image.shape[1]}x{image.shape[0]} pixels; "
            f"an HR image for x{scale} needs at least {smallest} on each side"
        )
    return crop_to_multiple(image, scale)
