"""Training images: decoded once into the device's memory as uint8, cropped and flipped there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError, RecipeError
from ikc_deploy.images import list_images, read_rgb

_log = logging.getLogger(__name__)


class CropSource:
    """Images `[H,W,3]` uint8, one after the other in one tensor, from which crops are drawn.

    A batch of crops is one gather: on a GPU nothing but its few random numbers leaves the host.
    """

    def __init__(
        self, images: Sequence[NDArray[np.uint8]], device: torch.device | str = "cpu"
    ) -> None:
        self.sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)
        """Height and width of each image, `[N,2]`."""
        self._starts = np.cumsum([0] + [image.size for image in images[:-1]], dtype=np.int64)
        pixels = np.concatenate([image.reshape(-1) for image in images])
        self._pixels = torch.from_numpy(pixels).to(device)

    @classmethod
    def from_folders(
        cls, folders: Sequence[Path], device: torch.device | str = "cpu"
    ) -> CropSource:
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
        return cls(images, device)

    def at_least(self, side: int) -> CropSource:
        """Only the images that a crop of `side` pixels fits into; they share the memory."""
        fitting = self.sizes.min(axis=1) >= side
        if not fitting.any():
            raise RecipeError(
                f"no training image is as large as a crop of {side} pixels; "
                "lower 'patch' in the recipe or add larger images"
            )
        chosen = object.__new__(CropSource)
        chosen.sizes, chosen._starts = self.sizes[fitting], self._starts[fitting]
        chosen._pixels = self._pixels
        return chosen

    def crops(
        self, random: np.random.Generator, count: int, side: int, part: slice = slice(None)
    ) -> Tensor:
        """`count` random crops, flipped and transposed at random: uint8 `[count,3,side,side]`.

        With `part`, only those of the `count` are made; the random numbers are the same.
        """
        chosen = random.integers(len(self.sizes), size=count)
        corners = (random.random((count, 2)) * (self.sizes[chosen] - side + 1)).astype(np.int64)
        flips = random.integers(2, size=(count, 3)).astype(bool)
        steps = np.arange(side)
        # Addresses of the rows and columns of each crop, turned round where it is flipped.
        turned = [np.where(flips[:, axis, None], steps[::-1], steps) for axis in (0, 1)]
        rows, columns = (corners[:, axis, None] + turned[axis] for axis in (0, 1))
        rows = self._starts[chosen, None] + rows * self.sizes[chosen, 1:] * 3
        columns = columns * 3
        down = np.where(flips[:, 2:], columns, rows)[part]
        across = np.where(flips[:, 2:], rows, columns)[part]
        device = self._pixels.device
        row, column = (torch.from_numpy(a).to(device) for a in (down, across))
        channel = torch.arange(3, device=device)[None, :, None, None]
        return self._pixels[row[:, None, :, None] + column[:, None, None, :] + channel]
