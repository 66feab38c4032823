"""F over frames whose code is known: whole, or in tiles where memory does not hold the whole."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle import Bundle
from ikc_deploy.errors import OutOfMemoryError
from ikc_deploy.runtime.frames import Frames, FrameShape
from ikc_deploy.runtime.memory import LOOP_BYTES, RESTORE_BYTES
from ikc_deploy.runtime.passes import Passes
from ikc_deploy.runtime.tiling import (
    SIDE_STEP,
    SMALLEST_TILE,
    Restore,
    TileSettings,
    measured_reach,
    restore_in_tiles,
)


class Restorer:
    """Makes images of frames and codes.

    `free` is the memory that the device had at first, in bytes, if known: the tiles' shape must not
    follow its ups and downs, or every frame would need buffers of its own.
    """

    def __init__(
        self, passes: Passes, bundle: Bundle, tiles: TileSettings, free: int | None
    ) -> None:
        self._passes = passes
        self._basis = bundle.basis
        self._io = bundle.manifest.io
        self._scale = bundle.manifest.scale
        self._tiles = tiles
        self._free = free
        self._halved = False
        self._reach: int | None = None

    def side(self, shape: FrameShape, loop: bool) -> int | None:
        """Side of the tiles for such frames, in LR pixels; None if they stay whole.

        `loop` says whether the whole loop is to run on them; with corrections, it needs more memory
        than F.
        """
        corrects = loop and self._passes.iters > 0
        pixel_bytes = shape.batch * (LOOP_BYTES if corrects else RESTORE_BYTES)
        return self._tiles.side(shape.height, shape.width, pixel_bytes, self._free)

    def restored(self, frames: Frames, codes: NDArray[np.float32], side: int | None) -> Any:
        """Images of `frames` `[N,...]` under `codes` `[N,code_size]`, in tiles of `side`.

        They are where the frames are, but on the host if there are tiles.
        """
        if side is None:
            return self._passes.restored(frames, codes)
        frames = self._passes.on_host(frames, whole=False)
        return np.stack(
            [self._tiled(frame, code, side) for frame, code in zip(frames, codes, strict=True)]
        )

    def halve(self, shape: FrameShape, loop: bool, error: OutOfMemoryError) -> None:
        """Use tiles half as large from now on, with a warning.

        Raises `error` if that was done before, is forbidden, or would make them too small.
        """
        side = self.side(shape, loop) or max(shape.height, shape.width)
        half = SIDE_STEP * (side // 2 // SIDE_STEP)
        if self._halved or self._tiles.tile is None or half < SMALLEST_TILE:
            raise error
        message = f"{error}; going on with tiles of {half} LR pixels"
        warnings.warn(message, RuntimeWarning, stacklevel=5)
        self._halved = True
        self._tiles = TileSettings(half)
        self._passes.forget()

    def _tiled(self, frame: NDArray[Any], code: NDArray[np.float32], side: int) -> NDArray[Any]:
        if self._reach is None:
            widest = self._basis.code_of_sigma(self._basis.sigma_range[1])
            self._reach = measured_reach(self._restore(widest), side, self._io, self._scale)
        restore = self._restore(code)
        sides = (side, side)
        return restore_in_tiles(frame, sides, self._reach, self._io, self._scale, restore)

    def _restore(self, code: NDArray[np.float32]) -> Restore:
        return lambda tile: self._passes.restored(tile[None], code)[0]
