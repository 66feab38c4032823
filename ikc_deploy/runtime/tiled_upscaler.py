"""The SR network on frames with known codes: whole, or in tiles that are blended."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle, FrameIO
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.executor import NetworkExecutor, UploadedBatch
from ikc_deploy.runtime.tiling import balanced_sides, blend_areas, measure_halo

_HALO_TILE: Final = 192
"""Side in LR pixels of the tiles on which the halo is measured; if they are too small to show it,
tiles of the full size are used."""


class TiledUpscaler:
    """Upscales frames with known kernel codes, whole or in tiles.

    Args:
        executor: Runs the networks.
        bundle: The bundle of the networks.
    """

    def __init__(self, executor: NetworkExecutor, bundle: Bundle) -> None:
        self._executor = executor
        self._basis = bundle.basis
        self._scale = bundle.manifest.scale
        self._halo: int | None = None
        """Halo of the SR network in LR pixels, once it is measured."""

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
