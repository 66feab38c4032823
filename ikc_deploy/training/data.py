"""Training images: decoded once into memory as uint8, cropped and flipped at random."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError, RecipeError
from ikc_deploy.images import list_images, read_rgb

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropSource:
    """Images `[H,W,3]` uint8 in memory, from which square crops are drawn."""

    images: tuple[NDArray[np.uint8], ...]

    @classmethod
    def from_folders(cls, folders: Sequence[Path]) -> CropSource:
        """Decode every image of the folders. A damaged image is named in a warning and skipped.

        Raises `InputError` for a missing or empty folder, before anything is decoded.
        """
        paths = [path for folder in folders for path in list_images(folder)]
        images = []
        for path in paths:
            try:
                images.append(read_rgb(path))
            except InputError as error:
                _log.warning("skipped: %s", error)
        if not images:
            raise InputError("not one training image could be read")
        return cls(tuple(images))

    def at_least(self, side: int) -> CropSource:
        """Only the images that a crop of `side` pixels fits into."""
        fitting = tuple(image for image in self.images if min(image.shape[:2]) >= side)
        if not fitting:
            raise RecipeError(
                f"no training image is as large as a crop of {side} pixels; "
                "lower 'patch' in the recipe or add larger images"
            )
        return CropSource(fitting)

    def crops(self, random: np.random.Generator, count: int, side: int) -> Tensor:
        """`count` random crops, flipped and transposed at random: uint8 `[count,3,side,side]`."""
        batch = np.empty((count, side, side, 3), np.uint8)
        for index in range(count):
            image = self.images[random.integers(len(self.images))]
            top = random.integers(image.shape[0] - side + 1)
            left = random.integers(image.shape[1] - side + 1)
            crop = image[top : top + side, left : left + side]
            if random.integers(2):
                crop = crop[::-1]
            if random.integers(2):
                crop = crop[:, ::-1]
            if random.integers(2):
                crop = crop.transpose(1, 0, 2)
            batch[index] = crop
        return torch.from_numpy(batch).permute(0, 3, 1, 2)
