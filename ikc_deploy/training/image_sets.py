"""Sets of training images: where named ones are found, and how a run identifies its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ikc_deploy.errors import RecipeError
from ikc_deploy.files import real_path, sha256_file
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.text import printable

FOLDERS_VARIABLE: Final = "IKC_DATASETS"
"""Environment variable: folders that hold folders of image sets, separated as in PATH."""

DEFAULT_FOLDER: Final = "datasets"
"""Folder that is searched last, in the current folder."""

SOURCES: Final = {
    "bsds400": "the 400 images of BSDS500's train and test folders (Berkeley Segmentation Dataset)",
    "t91": "the 91 images of Yang et al., Image Super-Resolution via Sparse Representation, 2010",
    "imagenet883_half": "ImageNet samples (EliSchwartz/imagenet-sample-images), halved by Lanczos",
    "hr_free": "the photographs listed in training/hr_free_LICENSES.md",
    "DIV2K": "DIV2K_train_HR of the NTIRE 2017 challenge (data.vision.ee.ethz.ch/cvl/DIV2K)",
    "Flickr2K": "Flickr2K_HR of EDSR's authors (Lim et al., 2017)",
    "Set5": "Bevilacqua et al., 2012",
    "Set14": "Zeyde et al., 2010",
    "Urban100": "Huang et al., Single Image Super-Resolution from Transformed Self-Exemplars, 2015",
}
"""Origin of the image sets that recipes name."""


@dataclass(frozen=True)
class ImageSet:
    """The images of folders in the order of training, identified by their contents alone.

    A run is not resumed on other images.
    """

    images: int
    """Number of images."""
    sha256: str
    """Checksum of the checksums of all files, in order."""

    @classmethod
    def of_folders(cls, folders: Sequence[Path]) -> ImageSet:
        """Return the image set of `folders`; every image file is read.

        Raises:
            InputError: A folder is missing or holds no images.
            OSError: A file cannot be read.
        """
        paths = [path for folder in folders for path in list_images(folder)]
        digests = "\n".join(map(sha256_file, paths))
        return cls(len(paths), hashlib.sha256(digests.encode()).hexdigest())


def is_name(entry: str) -> bool:
    """Return whether an entry of a recipe is the name of an image set, and not a path."""
    return Path(entry).name == entry and entry not in (".", "..")


def find_image_set(name: str) -> Path | None:
    """Return the absolute folder of an image set, or None if no searched folder holds it."""
    listed = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)
    for root in [*filter(None, listed), DEFAULT_FOLDER]:
        folder = Path(root) / name
        if folder.is_dir():
            return real_path(folder)
    return None


def require_image_set(name: str) -> Path:
    """Return the absolute folder of an image set.

    Raises:
        RecipeError: It is not found; the message says where it comes from, if that is known.
    """
    folder = find_image_set(name)
    if folder is None:
        source = f" ({SOURCES[name]})" if name in SOURCES else ""
        raise RecipeError(
            f"the image set '{printable(name)}'{source} is in no folder of {FOLDERS_VARIABLE}, "
            f"and not in '{DEFAULT_FOLDER}' of the current folder; set {FOLDERS_VARIABLE} to the "
            "folder that holds it, or give folders of HR images with --data"
        )
    return folder
