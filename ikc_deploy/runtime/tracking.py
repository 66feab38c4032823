"""Tracking of the kernel code and the scene from one frame of a clip to the next.

Within a scene the blur changes slowly, so the estimate for a frame starts from the code of the
previous frame. Three rules keep the estimate stable:

- At a cut, which is detected from the frames, the estimate starts from scratch.
- The initial code is pulled towards the predictor's code for the new frame. With corrections alone,
  errors would accumulate without bound; with the pull they decay within a few frames.
- The code used for the image is a moving average of the corrected codes, to avoid flicker.

The two weights trade flicker against lag; docs/estimation.md compares other values.
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
"""Number of blocks along each axis at which consecutive frames are compared."""

_CUT_LEVELS: Final = 2.0
_CUT_CONTRAST: Final = 0.4
_CUT_MOTION: Final = 3.0
"""Lower bounds of the mean change of the blocks at a cut: in 8-bit levels; as a share of their
standard deviation (1.1 for unrelated images); and as a multiple of the mean change over the last
frames, because fast motion persists and a cut does not."""

_MOTION_SHARE: Final = 0.25
"""Weight of the newest frame in the moving average of the motion."""

_PULL: Final = 0.25
"""Share by which the initial code is pulled towards the predictor's code."""

_SMOOTHING: Final = 0.5
"""Weight of a frame's corrected code in the moving average."""


class Sequencer:
    """Makes the frames of a clip use its tracker in order, although they are upscaled in parallel.

    Only the estimation of a code depends on the previous frame, so everything else (copies, the
    predictor, the SR network) runs in parallel.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._first = 0
        """Number of the first turn that has not ended."""
        self._ended: set[int] = set()
        """Numbers of later turns that have ended, of frames that failed or were dropped."""

    def take(self) -> Turn:
        """Return the turn of the next frame; the caller must end it."""
        self._taken += 1
        return Turn(self, self._taken - 1)

    def wait(self, number: int) -> None:
        """Wait until all turns before `number` have ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._first >= number)

    def end(self, number: int) -> None:
        """End a turn; a second call does nothing."""
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
    """The turn of one frame to use the tracker of its clip."""

    sequencer: Sequencer
    """Sequencer of the clip."""
    number: int
    """Index of the frame in the clip."""

    def wait(self) -> None:
        """Wait until the turns of all previous frames have ended."""
        self.sequencer.wait(self.number)

    def end(self) -> None:
        """End the turn, so that the next frame may use the tracker; a second call does nothing."""
        self.sequencer.end(self.number)


class Tracker:
    """The tracking state of one clip."""

    def __init__(self) -> None:
        self._corrected: NDArray[np.float32] | None = None
        self._used: NDArray[np.float32] | None = None
        self._thumbnail: NDArray[np.float32] | None = None
        self._motion = 0.0

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Restore the tracker's state if the block raises."""
        # Codes and thumbnails are replaced, never changed in place.
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    def is_same_scene(self, thumbnail: NDArray[np.float32]) -> bool:
        """Register the next frame, and return whether it continues a scene that has a code.

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

        Without a predictor (None) it is the last corrected code. Errors cannot accumulate then: the
        correction of a loop without a predictor computes the code from the images alone.
        """
        assert self._corrected is not None
        if predicted is None:
            return self._corrected
        return self._corrected + np.float32(_PULL) * (predicted - self._corrected)

    def update(self, corrected: NDArray[np.float32]) -> NDArray[np.float32]:
        """Store the corrected code, and return the smoothed code to use; both `[code_size]`."""
        assert self._used is not None
        self._corrected = corrected
        self._used = self._used + np.float32(_SMOOTHING) * (corrected - self._used)
        return self._used


def thumbnail(plane: FramePlane) -> NDArray[np.float32]:
    """Return block means of a plane, about `[_THUMBNAIL, _THUMBNAIL]` of them."""
    height, width = (max(1, size // _THUMBNAIL) for size in plane.shape)
    return plane.means(height, width)
