"""F over frames whose code is known: whole, or in tiles where memory does not hold the whole."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import OutOfMemoryError
from ikc_deploy.runtime.executor import NetworkExecutor
from ikc_deploy.runtime.frames import Frames, FrameShape
from ikc_deploy.runtime.memory import LOOP_BYTES, RESTORE_BYTES
from ikc_deploy.runtime.tiling import (
    MIN_TILE,
    TILE_STEP,
    TileSettings,
    UpscaleTile,
    measure_halo,
    upscale_in_tiles,
)


class TiledUpscaler:
    """Makes images of frames and codes.

    `free` is the memory that the device had at first, in bytes, if known: the tiles' shape must not
    follow its ups and downs, or every frame would need buffers of its own.
    """

    def __init__(
        self, executor: NetworkExecutor, bundle: Bundle, tiles: TileSettings, free: int | None
    ) -> None:
        self._executor = executor
        self._basis = bundle.basis
        self._io = bundle.manifest.io
        self._scale = bundle.manifest.scale
        self._tiles = tiles
        self._free = free
        self._halved = False
        self._halo: int | None = None

    def tile_size(self, shape: FrameShape, loop: bool) -> int | None:
        """Side of the tiles for such frames, in LR pixels; None if they stay whole.

        `loop` says whether the whole loop is to run on them; with corrections, it needs more memory
        than F.
        """
        corrects = loop and self._executor.iters > 0
        pixel_bytes = shape.batch * (LOOP_BYTES if corrects else RESTORE_BYTES)
        return self._tiles.tile_size(shape.height, shape.width, pixel_bytes, self._free)

    def upscale(self, frames: Frames, codes: NDArray[np.float32], tile_size: int | None) -> Any:
        """Images of `frames` `[N,...]` under `codes` `[N,code_size]`, in tiles of `tile_size`.

        They are where the frames are, but on the host if there are tiles.
        """
        if tile_size is None:
            return self._executor.upscale(frames, codes)
        frames = self._executor.on_host(frames, whole=False)
        return np.stack(
            [self._tiled(frame, code, tile_size) for frame, code in zip(frames, codes, strict=True)]
        )

    def halve_tile_size(self, shape: FrameShape, loop: bool, error: OutOfMemoryError) -> None:
        """Use tiles half as large from now on, with a warning.

        Raises `error` if that was done before, is forbidden, or would make them too small.
        """
        tile_size = self.tile_size(shape, loop) or max(shape.height, shape.width)
        half = TILE_STEP * (tile_size // 2 // TILE_STEP)
        if self._halved or self._tiles.tile is None or half < MIN_TILE:
            raise error
        message = f"{error}; going on with tiles of {half} LR pixels"
        warnings.warn(message, RuntimeWarning, stacklevel=5)
        self._halved = True
        self._tiles = TileSettings(half)
        self._executor.forget()

    def _tiled(
        self, frame: NDArray[Any], code: NDArray[np.float32], tile_size: int
    ) -> NDArray[Any]:
        if self._halo is None:
            widest = self._basis.code_of_sigma(self._basis.sigma_range[1])
            self._halo = measure_halo(self._upscale_tile(widest), tile_size, self._io, self._scale)
        upscale = self._upscale_tile(code)
        tile_shape = (tile_size, tile_size)
        return upscale_in_tiles(frame, tile_shape, self._halo, self._io, self._scale, upscale)

    def _upscale_tile(self, code: NDArray[np.float32]) -> UpscaleTile:
        return lambda tile: self._executor.upscale(tile[None], code)[0]
