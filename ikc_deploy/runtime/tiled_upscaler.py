"""The SR network on frames with known codes: whole, or in tiles where memory is too small."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle, FrameIO
from ikc_deploy.errors import InputError, OutOfMemoryError
from ikc_deploy.runtime.estimation import WHOLE, Areas
from ikc_deploy.runtime.executor import NetworkExecutor, UploadedBatch
from ikc_deploy.runtime.frames import FrameShape
from ikc_deploy.runtime.memory import PixelMemory
from ikc_deploy.runtime.tiling import (
    MIN_TILE,
    TILE_STEP,
    TileSettings,
    balanced_sides,
    blend_areas,
    measure_halo,
)

_HALO_TILE: Final = 192
"""Side in LR pixels of the tiles on which the halo is measured; if they are too small to show it,
tiles of the full size are used."""


class TiledUpscaler:
    """An upscaler of frames with known kernel codes, in tiles where memory is too small.

    Args:
        executor: Runs the networks.
        bundle: The bundle of the networks.
        tiles: When and how frames are cut.
        free: Free memory of the device in bytes when the upscaler was created; None if unknown. It
            is measured once, because buffers are allocated again when the tile size changes.
        pixel: Memory that an LR pixel needs.
    """

    def __init__(
        self,
        executor: NetworkExecutor,
        bundle: Bundle,
        tiles: TileSettings,
        free: int | None,
        pixel: PixelMemory,
    ) -> None:
        self._executor = executor
        self._basis = bundle.basis
        self._scale = bundle.manifest.scale
        self._tiles = tiles
        self._free = free
        self._pixel = pixel
        self._halved = False
        self._halo: int | None = None

    def tile_size(self, shape: FrameShape, loop: bool) -> int | None:
        """Return the tile size for frames of a shape.

        Args:
            shape: Batch, height and width of the LR frames.
            loop: Whether the whole loop runs on them, which needs more memory than the SR network
                alone if there are corrections.

        Returns:
            Side of the tiles in LR pixels; None for whole frames.

        Raises:
            InputError: Memory is too small even for the smallest tile.
        """
        pixel_bytes = self._pixel_bytes(shape, loop)
        return self._tiles.tile_size(shape.height, shape.width, pixel_bytes, self._free)

    def frames_that_fit(self, shape: FrameShape, loop: bool) -> int:
        """Return the number of upscalers like this one that memory allows at the same time.

        Args:
            shape: Batch, height and width of the LR frames of each.
            loop: As in `tile_size`.

        Returns:
            The number, at least 1; very large if the free memory is unknown.
        """
        bound = self._tiles.bound(self._free)
        if bound is None:
            return sys.maxsize
        try:
            tile_size = self.tile_size(shape, loop)
        except InputError:
            return 1
        pixels = shape.height * shape.width if tile_size is None else tile_size**2
        return max(1, bound // (pixels * self._pixel_bytes(shape, loop)))

    def predict_areas(self, shape: FrameShape, tile_size: int | None) -> Areas:
        """Return where the predictor runs: on whole frames unless memory is too small even for it.

        Args:
            shape: Batch, height and width of the LR frames.
            tile_size: Side of the tiles in which they are upscaled; None for whole frames.
        """
        if tile_size is None:
            return WHOLE
        need = shape.batch * shape.height * shape.width * self._pixel.predict
        bound = self._tiles.bound(self._free)
        fits = not self._halved and (bound is None or need <= bound)
        return WHOLE if fits else Areas("tiles", tile_size)

    def upscale(
        self, frames: UploadedBatch, codes: NDArray[np.float32], tile_size: int | None
    ) -> Any:
        """Upscale frames with known codes.

        Args:
            frames: The frames.
            codes: Kernel codes `[N,code_size]`.
            tile_size: Side of the tiles in LR pixels; None for whole frames.

        Returns:
            Images `[N,...]`: where the frames are, or on the host if there are tiles.

        Raises:
            BackendError: The device failed.
            OutOfMemoryError: The device has too little memory.
        """
        if tile_size is None:
            return frames.upscale(codes)
        images = [self._tiled(frames, n, code, tile_size) for n, code in enumerate(codes)]
        return np.stack(images)

    def halve_tile_size(self, shape: FrameShape, loop: bool, error: OutOfMemoryError) -> None:
        """Halve the tile size for all later frames, with a `RuntimeWarning`.

        Args:
            shape: Shape of the frames that were too large.
            loop: As in `tile_size`.
            error: The error of the device.

        Raises:
            OutOfMemoryError: `error`, if the tile size was halved before, tiles are forbidden, or
                they would become too small.
        """
        tile_size = self.tile_size(shape, loop) or max(shape.height, shape.width)
        half = TILE_STEP * (tile_size // 2 // TILE_STEP)
        if self._halved or self._tiles.tile is None or half < MIN_TILE:
            raise error
        message = f"{error}; continuing with tiles of {half} LR pixels"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
        self._halved = True
        self._tiles = TileSettings(half)
        self._executor.forget()

    def _pixel_bytes(self, shape: FrameShape, loop: bool) -> int:
        corrects = loop and self._executor.iters > 0
        return shape.batch * (self._pixel.loop if corrects else self._pixel.restore)

    def _tiled(
        self, frames: UploadedBatch, number: int, code: NDArray[np.float32], tile_size: int
    ) -> NDArray[Any]:
        batch = frames.batch
        if self._halo is None:
            self._halo = self._measured_halo(tile_size, batch.io)
        size = batch.shape.height, batch.shape.width
        return blend_areas(
            size,
            balanced_sides(size, tile_size, self._halo),
            self._halo,
            batch.layout,
            self._scale,
            lambda area: frames.upscale_area(number, area, code),
        )

    def _measured_halo(self, tile_size: int, io: FrameIO) -> int:
        widest = self._basis.code_of_sigma(self._basis.sigma_range[1])

        def measured(side: int) -> int:
            return measure_halo(
                lambda tile: self._executor.upscale_tile(tile, widest), side, io, self._scale
            )

        # Small tiles show a small halo as well, and sooner.
        if tile_size > _HALO_TILE:
            with suppress(InputError):
                return measured(_HALO_TILE)
        return measured(tile_size)
