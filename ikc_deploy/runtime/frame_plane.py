"""The green plane of a frame, reduced to a few numbers: steps between neighbours, and means.

The choice of crops and the detection of scenes need no more. A frame in host memory is reduced
there; one in GPU memory is reduced on the GPU, and only the numbers come to the host.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

MAX_STEP: Final = 16
"""Maximum difference of neighbouring pixels, in 8-bit levels, that counts as texture."""


class FramePlane(Protocol):
    """The green plane of one frame. It is close enough to the brightness to find texture."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def texture(self, block: int) -> NDArray[np.float32]:
        """Return sums of absolute differences of neighbours in square blocks.

        Differences are limited to `MAX_STEP`; otherwise one hard edge would outweigh all texture.
        Only every fourth row and column counts, which chooses equally well and is fast enough for
        4K.

        Args:
            block: Side of the blocks in pixels, a multiple of 4.

        Returns:
            `[rows, columns]` of the blocks that fit, in 8-bit levels.
        """

    def means(self, height: int, width: int) -> NDArray[np.float32]:
        """Return means of blocks.

        Args:
            height: Height of the blocks in pixels.
            width: Width of the blocks in pixels.

        Returns:
            `[rows, columns]` of the blocks that fit, in 8-bit levels.
        """


class HostPlane:
    """A plane in host memory.

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
