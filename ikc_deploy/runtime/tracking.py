"""Tracking of the kernel code and the scene from one frame of a clip to the next.

Within a scene, blur changes slowly, so a frame's code starts from the last frame's code. Three
rules keep this stable:

- A cut is detected in the frames, and the code is estimated again from the beginning.
- The initial code is moved towards the predictor's code of the new frame. With corrections alone,
  their errors would accumulate without bound; this way they fade after a few frames.
- The code that is used follows the corrected code smoothly, so that the images do not flicker.

The two weights balance flicker and lag; docs/estimation.md reports the results of others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.frame_plane import FramePlane

_THUMBNAIL: Final = 16
"""Number of blocks along each axis in which a frame is compared with the last one."""

_CUT_LEVELS: Final = 2.0
_CUT_CONTRAST: Final = 0.4
_CUT_MOTION: Final = 3.0
"""Three lower bounds of the mean change of the blocks at a cut: a number of 8-bit levels, a share
of the blocks' standard deviation (unrelated images: 1.1), and a multiple of the mean change in the
last frames, because fast motion lasts and a cut does not."""

_MOTION_SHARE: Final = 0.25
"""Weight of the newest frame in the mean of the motion."""

_PULL: Final = 0.25
"""Share by which the initial code is moved towards the predictor's code."""

_SMOOTHING: Final = 0.5
"""Weight of a frame's corrected code in the code that is used."""


class Turns:
    """The order in which the frames of a clip that are upscaled at the same time use its tracker.

    Only the estimation of the code needs the last frame's code. So frames are copied, predicted and
    upscaled beside each other, but use the tracker in their order.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._first = 0
        """Number of the first turn that has not ended."""
        self._ended: set[int] = set()
        """Numbers of later turns that have ended, of frames that failed or were dropped."""

    def take(self) -> Turn:
        """Return the turn of the next frame, which must be ended."""
        self._taken += 1
        return Turn(self, self._taken - 1)

    def wait(self, number: int) -> None:
        """Wait until all turns before a turn have ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._first >= number)

    def end(self, number: int) -> None:
        """End a turn; may be called twice."""
        with self._changed:
            if number < self._first:
                return
            self._ended.add(number)
            while self._first in self._ended:
                self._ended.remove(self._first)
                self._first += 1
            self._changed.notify_all()


@dataclass(frozen=True)
class Turn:
    """The place of a frame in its clip."""

    turns: Turns
    """The order of the clip."""
    number: int
    """Number of frames before it."""

    def wait(self) -> None:
        """Wait until the turns of all frames before have ended."""
        self.turns.wait(self.number)

    def end(self) -> None:
        """Let the next frame use the tracker, once it is its turn; may be called twice."""
        self.turns.end(self.number)


class Tracker:
    """The tracking state of one clip."""

    def __init__(self) -> None:
        self._corrected: NDArray[np.float32] | None = None
        self._used: NDArray[np.float32] | None = None
        self._thumbnail: NDArray[np.float32] | None = None
        self._motion = 0.0

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Set the tracker back to what it was before the block if the block raises."""
        # Codes and thumbnails are replaced, never changed in place.
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    def is_same_scene(self, thumbnail: NDArray[np.float32]) -> bool:
        """Take the next frame, and return whether it continues a scene that has a code.

        Args:
            thumbnail: `thumbnail` of the frame.

        Returns:
            False for the first frame and after a cut: call `reset` with its code. True otherwise:
            call `initial_code` and `update`.
        """
        last, self._thumbnail = self._thumbnail, thumbnail
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
        """Set the code `[code_size]` of a scene's first frame."""
        self._corrected = self._used = code

    def initial_code(self, predicted: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return the code to correct, given the predictor's code; both `[code_size]`.

        Without a predictor (None) that is the last corrected code. Its error cannot accumulate if
        the correction computes the code from images alone, as that of such a loop does.
        """
        assert self._corrected is not None
        if predicted is None:
            return self._corrected
        return self._corrected + np.float32(_PULL) * (predicted - self._corrected)

    def update(self, corrected: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the corrected code and return the smoothed code to use; both `[code_size]`."""
        assert self._used is not None
        self._corrected = corrected
        self._used = self._used + np.float32(_SMOOTHING) * (corrected - self._used)
        return self._used


def thumbnail(plane: FramePlane) -> NDArray[np.float32]:
    """Return the means of blocks, at most about `[_THUMBNAIL, _THUMBNAIL]` of them."""
    height, width = (max(1, size // _THUMBNAIL) for size in plane.shape)
    return plane.means(height, width)
