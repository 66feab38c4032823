"""What is carried from one frame of a clip to the next: the kernel code, and what the scene is.

Within a scene blur changes slowly, so a frame's code starts from the last one's. Three things keep
that from going wrong:

- A cut is seen in the picture, and the code starts over.
- The start is moved towards what the predictor says of the new frame. Corrections alone would be
  carried on for ever, to wherever their errors add up; so they fade after a few frames.
- The code that is used follows the corrected one smoothly, so that the picture does not flicker.

The two weights decide between flicker and lag; docs/estimation.md has what others gave.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_THUMBNAIL: Final = 16
"""Blocks across and down in which a frame is compared with the last one."""

_CUT_LEVELS: Final = 2.0
_CUT_CONTRAST: Final = 0.4
_CUT_MOTION: Final = 3.0
"""Three lower bounds of the mean change of the blocks at a cut: a number of 8-bit levels, a share
of the blocks' standard deviation (unrelated images: 1.1), and a multiple of the mean change in the
last frames, because fast motion lasts and a cut does not."""

_MOTION_SHARE: Final = 0.25
"""Weight of the newest frame in the mean of the motion."""

_PULL: Final = 0.25
"""How far the start is moved towards the predictor's code."""

_SMOOTHING: Final = 0.5
"""Weight of a frame's corrected code in the code that is used."""


class Tracker:
    """The state of one clip."""

    def __init__(self) -> None:
        self._corrected: NDArray[np.float32] | None = None
        self._used: NDArray[np.float32] | None = None
        self._thumbnail: NDArray[np.float32] | None = None
        self._motion = 0.0

    def is_same_scene(self, levels: NDArray[Any]) -> bool:
        """Whether the next frame, a plane `[H,W]` in 8-bit levels, is of a scene with a code."""
        thumbnail, last = _thumbnail(levels), self._thumbnail
        self._thumbnail = thumbnail
        if last is None or last.shape != thumbnail.shape:
            self._used = None
            return False
        change = float(np.abs(thumbnail - last).mean())
        contrast = float(max(thumbnail.std(), last.std()))
        cut = change > max(_CUT_LEVELS, _CUT_CONTRAST * contrast, _CUT_MOTION * self._motion)
        self._motion += _MOTION_SHARE * (change - self._motion)
        if cut:
            self._used = None
        return self._used is not None

    def reset(self, code: NDArray[np.float32]) -> None:
        """Take the code of a scene's first frame."""
        self._corrected = self._used = code

    def initial_code(self, predicted: NDArray[np.float32]) -> NDArray[np.float32]:
        """The code to correct, when the predictor says `predicted`."""
        assert self._corrected is not None
        return self._corrected + np.float32(_PULL) * (predicted - self._corrected)

    def update(self, corrected: NDArray[np.float32]) -> NDArray[np.float32]:
        """The code to use, after the start was corrected to this."""
        assert self._used is not None
        self._corrected = corrected
        self._used = self._used + np.float32(_SMOOTHING) * (corrected - self._used)
        return self._used


def _thumbnail(levels: NDArray[Any]) -> NDArray[np.float32]:
    """Means of blocks, `[H,W]` to at most `[_THUMBNAIL, _THUMBNAIL]` or a few more."""
    height, width = (max(1, size // _THUMBNAIL) for size in levels.shape)
    rows, columns = levels.shape[0] // height, levels.shape[1] // width
    trimmed = levels[: rows * height, : columns * width]
    means: NDArray[np.float32] = trimmed.reshape(rows, height, columns, width).mean(
        axis=(1, 3), dtype=np.float32
    )
    return means
