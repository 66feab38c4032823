"""The choice between whole frames and tiles by the memory that a device has."""

from __future__ import annotations

import sys
import warnings

from ikc_deploy.errors import InputError, OutOfMemoryError
from ikc_deploy.runtime.estimation import WHOLE, EstimationAreas
from ikc_deploy.runtime.frames import FrameShape
from ikc_deploy.runtime.memory import PixelMemory
from ikc_deploy.runtime.tiling import MIN_TILE, TILE_STEP, TileSettings


class TilePlanner:
    """Chooses tile sizes by the memory of a device.

    Args:
        tiles: When and how frames are cut.
        free: Free memory of the device in bytes when the upscaler was created; None if unknown. It
            is measured once, because buffers are allocated again when the tile size changes.
        pixel: Memory that an LR pixel needs.
        corrects: Whether the loop has corrections; without any it needs no more memory than the SR
            network.
    """

    def __init__(
        self, tiles: TileSettings, free: int | None, pixel: PixelMemory, corrects: bool
    ) -> None:
        self._tiles = tiles
        self._free = free
        self._pixel = pixel
        self._corrects = corrects
        self._halved = False

    def tile_size(self, shape: FrameShape, loop: bool) -> int | None:
        """Return the tile size for frames of a shape.

        Args:
            shape: Batch, height and width of the LR frames.
            loop: Whether the whole loop runs on them, not only the SR network.

        Returns:
            Side of the tiles in LR pixels; None for whole frames.

        Raises:
            InputError: Memory is too small even for the smallest tile.
        """
        pixel_bytes = self._pixel_bytes(shape, loop)
        return self._tiles.tile_size(shape.height, shape.width, pixel_bytes, self._free)

    def predict_areas(self, shape: FrameShape, tile_size: int | None) -> EstimationAreas:
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
        return WHOLE if fits else EstimationAreas("tiles", tile_size)

    def frames_that_fit(self, shape: FrameShape, loop: bool) -> int:
        """Return the number of calls that memory allows at the same time.

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

    def _pixel_bytes(self, shape: FrameShape, loop: bool) -> int:
        corrects = loop and self._corrects
        return shape.batch * (self._pixel.loop if corrects else self._pixel.restore)
