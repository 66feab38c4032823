"""Statistics of a frame's green plane: texture and means of blocks.

Crop selection and scene detection need only these. They are computed where the frame is: on the
host, or on the GPU, from which only the statistics are downloaded.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

MAX_STEP: Final = 16
"""Limit on the difference of neighbouring pixels, in 8-bit levels."""


class FramePlane(Protocol):
    """The green plane of one frame, as an approximation of luma."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def texture(self, block: int) -> NDArray[np.float32]:
        """Return the sums of absolute differences of neighbouring pixels in square blocks.

        Differences are clipped to `MAX_STEP`; otherwise a single hard edge would outweigh all
        texture. Only every fourth row and column is used, which selects equally good crops and is
        fast enough for 4K.

        Args:
            block: Side of the blocks in pixels, a multiple of 4.

        Returns:
            `[rows, columns]`, one value per complete block, in 8-bit levels.
        """

    def means(self, height: int, width: int) -> NDArray[np.float32]:
        """Return the means of blocks.

        Args:
            height: Height of the blocks in pixels.
            width: Width of the blocks in pixels.

        Returns:
            `[rows, columns]`, one value per complete block, in 8-bit levels.
        """


class HostPlane:
    """A `FramePlane` in host memory.

    Args:
        levels: `[H,W]` in 8-bit levels.
    """

    def __init__(self, levels: NDArray[Any]) -> None:
        self._levels = levels

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self._levels.shape
        return height, width

    def texture(self, block: int) -> NDArray[np.float32]:
        """Return sums of differences in blocks; see `FramePlane.texture`."""
        levels = self._trimmed(block, block).astype(np.float32)
        return _steps_along_rows(levels, block) + _steps_along_rows(levels.T, block).T

    def means(self, height: int, width: int) -> NDArray[np.float32]:
        """Return means of blocks; see `FramePlane.means`."""
        levels = self._trimmed(height, width)
        rows, columns = levels.shape[0] // height, levels.shape[1] // width
        means: NDArray[np.float32] = levels.reshape(rows, height, columns, width).mean(
            axis=(1, 3), dtype=np.float32
        )
        return means

    def _trimmed(self, height: int, width: int) -> NDArray[Any]:
        rows, columns = self._levels.shape[0] // height, self._levels.shape[1] // width
        return self._levels[: rows * height, : columns * width]


def _steps_along_rows(levels: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    lines = levels[::4]
    steps = np.minimum(np.abs(np.diff(lines, axis=1, prepend=lines[:, :1])), MAX_STEP)
    rows, columns = (size // block for size in levels.shape)
    sums: NDArray[np.float32] = steps.reshape(rows, block // 4, columns, block).sum(axis=(1, 3))
    return sums
