"""Margins of frames for networks that know the blur kernel and assume that frames wrap around.

The content beyond a photograph's edges is unknown, and a mirrored margin differs from what the
kernel would have produced: in it, a diagonal blur runs along the other diagonal. A network that
trusts such pixels produces ringing far into the image. So a frame is upscaled twice: first as if it
were noisy, with a mirrored margin; then with a margin that is the first image blurred by the
kernel. docs/offline.md reports the gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.kernels.conventions import degrade_fkp

Border = Literal["reflect", "wrap"]
"""Assumed content beyond a frame's edges: its mirror image, or its opposite edge."""

_FIRST_NOISE: Final = 10.0
"""Assumed noise in levels of a frame with a mirrored margin; it smooths what does not fit."""


@dataclass(frozen=True)
class FrameMargin:
    """The margin around frames `[H,W,3]` uint8 or `[3,H,W]` float32, told apart by their type."""

    halo: int
    """Width of the margin in LR pixels."""
    scale: int
    """Scale factor."""
    smallest: tuple[int, int] = (0, 0)
    """Minimum height and width of a frame with its margin, which is wider below and right then."""

    def padded(self, frame: NDArray[Any], border: Border) -> NDArray[Any]:
        """Return `frame` with its margin."""
        margins = [(0, 0)] * 3
        sizes = frame_size(frame)
        for axis, (size, smallest) in enumerate(zip(sizes, self.smallest, strict=True)):
            margins[_rows(frame) + axis] = (self.halo, max(self.halo, smallest - size - self.halo))
        # A mirror image that repeats the edge pixel: without it, images lose up to 1.5 dB.
        return np.pad(frame, margins, "wrap" if border == "wrap" else "symmetric")

    def inside(self, image: NDArray[Any], frame: NDArray[Any], before: int = 0) -> NDArray[Any]:
        """Return the SR image of `frame`, cut out of that of the padded frame.

        Args:
            image: SR image of the padded frame.
            frame: The frame without its margin.
            before: Number of SR pixels, on each axis, by which to begin further up and left.
        """
        start = self.scale * self.halo - before
        cut = [slice(None)] * 3
        for axis, size in enumerate(frame_size(frame)):
            cut[_rows(frame) + axis] = slice(start, start + self.scale * size)
        return np.ascontiguousarray(image[tuple(cut)])

    def upscaled_twice(
        self,
        frame: NDArray[Any],
        kernel: NDArray[np.floating],
        noise: float,
        upscale: Callable[[NDArray[Any], float], NDArray[Any]],
    ) -> NDArray[Any]:
        """Return the SR image of a photograph with its margin; see the module and `inside`.

        Args:
            frame: The frame without a margin.
            kernel: Blur kernel `[k,k]` in the FKP convention.
            noise: Standard deviation of the frame's noise in 8-bit levels.
            upscale: Upscales a padded frame that has a noise of so many levels.
        """
        mirrored = self.padded(frame, "reflect")
        first = upscale(mirrored, max(noise, _FIRST_NOISE))
        return upscale(self._remargined(mirrored, frame, first, kernel), noise)

    def _remargined(
        self,
        padded: NDArray[Any],
        frame: NDArray[Any],
        image: NDArray[Any],
        kernel: NDArray[np.floating],
    ) -> NDArray[Any]:
        """Return `padded` with a new margin: its SR `image`, degraded by `kernel`."""
        made, rows = padded.copy(), _rows(frame)
        small, large = (np.moveaxis(each, (rows, rows + 1), (0, 1)) for each in (made, image))
        whole_levels = frame.dtype == np.uint8
        for axis, size in enumerate(frame_size(frame)):
            for start, stop in ((0, self.halo), (self.halo + size, small.shape[axis])):
                blurred = _blurred(large, kernel, self.scale, axis, start, stop)
                levels = np.rint(blurred) if whole_levels else blurred
                place = (slice(None),) * axis + (slice(start, stop),)
                small[place] = np.clip(levels, 0, 255 if whole_levels else 1)
        return made


def frame_size(frame: NDArray[Any]) -> tuple[int, int]:
    """Return height and width of a frame `[H,W,3]` uint8 or `[3,H,W]` float32."""
    rows = _rows(frame)
    return frame.shape[rows], frame.shape[rows + 1]


def _rows(frame: NDArray[Any]) -> int:
    """Return the axis of a frame's rows."""
    return 0 if frame.dtype == np.uint8 else 1


def _blurred(
    image: NDArray[Any],
    kernel: NDArray[np.floating],
    scale: int,
    axis: int,
    start: int,
    stop: int,
) -> NDArray[np.float64]:
    """Return LR rows (axis 0) or columns `start` to `stop` of a degraded SR image `[sH,sW,3]`.

    The degradation is that of the FKP convention.
    """
    reach = -(-(len(kernel) // 2) // scale)
    first, last = max(0, start - reach), min(image.shape[axis] // scale, stop + reach)
    place = slice(scale * first, scale * last)
    strip = image[(slice(None),) * axis + (place,)]
    inside = slice(start - first, stop - first)
    return degrade_fkp(strip, kernel, scale)[(slice(None),) * axis + (inside,)]
