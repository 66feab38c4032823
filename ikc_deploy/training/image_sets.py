"""Identification of a run's training images, so that it is not resumed on others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ikc_deploy.files import sha256_file
from ikc_deploy.imaging.image_io import list_images


@dataclass(frozen=True)
class ImageSet:
    """The images of folders in the order of training, identified by their contents alone."""

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
