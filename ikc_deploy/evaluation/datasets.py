"""Folders of HR images, checked before anything is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.degrade import crop_to_multiple
from ikc_deploy.imaging.image_io import list_images, read_rgb
from ikc_deploy.runtime.frames import MIN_SIDE


@dataclass(frozen=True)
class Dataset:
    """HR images under a name."""

    name: str
    paths: tuple[Path, ...]

    @classmethod
    def open(cls, folder: Path, scale: int) -> Dataset:
        """The images of `folder`, each decoded once to see that it can be measured.

        The dataset is named like the folder. Raises `InputError` naming the folder or the image.
        """
        paths = tuple(list_images(folder))
        for path in paths:
            read_hr(path, scale)
        return cls(folder.resolve().name, paths)


def open_datasets(folders: Sequence[Path], scale: int) -> list[Dataset]:
    """A dataset for every folder.

    Raises `InputError` for no folder, two of one name, or a folder or image that is unusable.
    """
    if not folders:
        raise InputError("there is nothing to measure without a folder of HR images")
    datasets: dict[str, Dataset] = {}
    for folder in folders:
        dataset = Dataset.open(folder, scale)
        if dataset.name in datasets:
            raise InputError(
                f"two folders are named '{dataset.name}', so their figures could not be told "
                "apart; rename one or measure it in another run"
            )
        datasets[dataset.name] = dataset
    return list(datasets.values())


def read_hr(path: Path, scale: int) -> NDArray[np.uint8]:
    """An HR image `[H,W,3]` uint8, cropped to multiples of `scale`.

    Raises `InputError` naming `path` if it cannot be read or its LR image would be too small.
    """
    image = read_rgb(path)
    smallest = scale * MIN_SIDE
    if min(image.shape[:2]) < smallest:
        raise InputError(
            f"'{path}' has {image.shape[1]}x{image.shape[0]} pixels; "
            f"an HR image for x{scale} needs at least {smallest} on each side"
        )
    return crop_to_multiple(image, scale)
