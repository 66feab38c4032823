"""Training images, decoded once into the device's memory as uint8, cropped and flipped there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ikc_deploy.errors import InputError, RecipeError
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.training.loop_recipe import CropRecipe

_log = logging.getLogger(__name__)

_ALL_ALIKE: Final = CropRecipe()
_CELL: Final = 32
"""Side of the cells in which the detail of an image is measured, in pixels."""


class CropSource:
    """Images `[H,W,3]` uint8, concatenated in one tensor, from which crops are drawn.

    A batch of crops is one gather: on a GPU only a few random numbers are copied from the host.

    Args:
        images: HR images `[H,W,3]` uint8; they are copied.
        device: Device that holds the images and the crops.
        settings: Selection of the crops.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        device: torch.device | str = "cpu",
        settings: CropRecipe = _ALL_ALIKE,
    ) -> None:
        self._settings = settings
        images = [*images, *_halved(images, settings.halved_from)]
        self.sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)
        """Heights and widths of the images, `[N,2]` int64."""
        self._starts = np.cumsum([0] + [image.size for image in images[:-1]], dtype=np.int64)
        pixels = np.concatenate([image.reshape(-1) for image in images])
        self._pixels = torch.from_numpy(pixels).to(device)
        self._detail = _DetailTables(images) if settings.candidates > 1 else None
        self._indices = np.arange(len(images))

    @classmethod
    def from_folders(
        cls,
        folders: Sequence[Path],
        device: torch.device | str = "cpu",
        settings: CropRecipe = _ALL_ALIKE,
    ) -> CropSource:
        """Decode every image of the folders; skip damaged ones with a warning.

        Args:
            folders: Folders of HR images.
            device: Device that holds the images and the crops.
            settings: Selection of the crops.

        Raises:
            InputError: A folder is missing or empty (before anything is decoded), or no image is
                readable.
        """
        paths = [path for folder in folders for path in list_images(folder)]
        with ThreadPoolExecutor() as threads:
            images = [image for image in threads.map(_decoded, paths) if image is not None]
        if not images:
            raise InputError("not one training image could be read; check the folders of 'data'")
        return cls(images, device, settings)

    def at_least(self, side: int) -> CropSource:
        """Return a source of only the images that a crop of `side` pixels fits into.

        It shares the memory of this one.

        Raises:
            RecipeError: No image is large enough.
        """
        fitting = self.sizes.min(axis=1) >= side
        if not fitting.any():
            raise RecipeError(
                f"no training image is as large as a crop of {side} pixels; "
                "lower 'patch' in the recipe or add larger images"
            )
        chosen = object.__new__(CropSource)
        chosen.sizes, chosen._starts = self.sizes[fitting], self._starts[fitting]
        chosen._pixels, chosen._settings = self._pixels, self._settings
        chosen._detail, chosen._indices = self._detail, self._indices[fitting]
        return chosen

    def crops(
        self, random: np.random.Generator, count: int, side: int, part: slice = slice(None)
    ) -> Tensor:
        """Return random crops, flipped and transposed at random.

        Args:
            random: Generator of positions and flips.
            count: Number of crops that are drawn.
            side: Side of the crops in pixels; every image must be as large (see `at_least`).
            part: Part of the crops to return; the random numbers do not depend on it.

        Returns:
            Crops `[N,3,side,side]` uint8 on the source's device; N is `count` without `part`.
        """
        chosen, corners = self._places(random, count, side)
        flips = random.integers(2, size=(count, 3)).astype(bool)
        steps = np.arange(side)
        # Addresses of the rows and columns of each crop, reversed where it is flipped.
        turned = [np.where(flips[:, axis, None], steps[::-1], steps) for axis in (0, 1)]
        rows, columns = (corners[:, axis, None] + turned[axis] for axis in (0, 1))
        rows = self._starts[chosen, None] + rows * self.sizes[chosen, 1:] * 3
        columns = columns * 3
        down = np.where(flips[:, 2:], columns, rows)[part]
        across = np.where(flips[:, 2:], rows, columns)[part]
        device = self._pixels.device
        row, column = (torch.from_numpy(a).to(device, non_blocking=True) for a in (down, across))
        channel = torch.arange(3, device=device)[None, :, None, None]
        return self._pixels[row[:, None, :, None] + column[:, None, None, :] + channel]

    def _places(
        self, random: np.random.Generator, count: int, side: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the image `[count]` and the top left corner `[count,2]` of each crop."""
        candidates = self._settings.candidates
        weights = self.sizes.prod(axis=1).astype(np.float64) ** self._settings.area_weight
        chosen = random.choice(len(weights), size=(count, candidates), p=weights / weights.sum())
        room = self.sizes[chosen] - side + 1
        corners = (random.random((count, candidates, 2)) * room).astype(np.int64)
        if self._detail is None:
            return chosen[:, 0], corners[:, 0]
        detail = self._detail.means(self._indices[chosen], corners, side)
        best = (np.arange(count), detail.argmax(axis=1))
        return chosen[best], corners[best]


class _DetailTables:
    """The detail of every image in cells, summed from its top left corner, in one array."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        with ThreadPoolExecutor() as threads:
            tables = list(threads.map(_summed_detail, images))
        self._starts = np.cumsum([0] + [table.size for table in tables[:-1]], dtype=np.int64)
        self._widths = np.array([table.shape[1] for table in tables], dtype=np.int64)
        self._sums = np.concatenate([table.ravel() for table in tables])

    def means(
        self, images: NDArray[np.int64], corners: NDArray[np.int64], side: int
    ) -> NDArray[np.float64]:
        """Return the mean detail of crops.

        Args:
            images: Index of the image of each crop, `[...]`.
            corners: Top left corners in pixels, `[...,2]`.
            side: Side of the crops in pixels.
        """
        first, end = corners // _CELL, (corners + side - 1) // _CELL + 1
        starts, widths = self._starts[images], self._widths[images]

        def at(row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float64]:
            return self._sums[starts + row * widths + column]

        (top, left), (bottom, right) = np.moveaxis(first, -1, 0), np.moveaxis(end, -1, 0)
        total = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
        return np.asarray(total / ((bottom - top) * (right - left)), np.float64)


def _decoded(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read_rgb(path)
    except InputError as error:
        _log.warning("skipped: %s", error)
        return None


def _summed_detail(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the sums of `_detail` over all cells above and left of each corner of a cell."""
    return np.pad(_detail(image).astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)


def _detail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean absolute difference of neighbouring green values in every cell."""
    green = image[..., 1].astype(np.int16)
    steps = np.zeros(green.shape, np.float32)
    steps[1:] += np.abs(np.diff(green, axis=0))
    steps[:, 1:] += np.abs(np.diff(green, axis=1))
    rows, columns = (np.arange(0, length, _CELL) for length in green.shape)
    sums = np.add.reduceat(np.add.reduceat(steps, rows, axis=0), columns, axis=1)
    heights, widths = (
        np.diff(np.append(at, n)) for at, n in zip((rows, columns), green.shape, strict=True)
    )
    return np.asarray(sums / np.outer(heights, widths), np.float32)


def _halved(images: Sequence[NDArray[np.uint8]], side: int | None) -> list[NDArray[np.uint8]]:
    """Return copies at half size of the images whose short side has at least `side` pixels."""
    if side is None:
        return []
    large = [image for image in images if min(image.shape[:2]) >= side]
    sizes = [(image.shape[1] // 2, image.shape[0] // 2) for image in large]

    def downscaled(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    with ThreadPoolExecutor() as threads:
        return list(threads.map(downscaled, large, sizes))
