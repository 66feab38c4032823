"""Estimation of a frame's kernel code from parts of the frame.

The predictor is cheap, so it runs on the whole frame. A correction needs an SR image, which is
expensive. Because the blur is assumed to be the same everywhere, a few crops are enough: the four
with the most texture, since blur is invisible in a flat sky. They are corrected in one batch, each
with its own code. The codes are combined by a trimmed mean over sigma, which ignores misleading
crops (a caption, a saturated light). Then the SR network runs once on the frame.
docs/estimation.md reports quality and speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.runtime.executor import UploadedBatch
from ikc_deploy.runtime.frame_plane import FramePlane
from ikc_deploy.runtime.frames import Area
from ikc_deploy.runtime.tiling import TILE_STEP
from ikc_deploy.runtime.tracking import Tracker, Turn, thumbnail
from ikc_deploy.text import shown

Estimate = Literal["full", "crops", "track"]
"""How the kernel code of a frame is estimated:

- "full": the loop on the whole frame (IKC, Algorithm 1);
- "crops": the predictor on the whole frame, corrections on a few textured crops, one SR pass;
- "track" (for clips): like "crops", but starting from the previous frame's code, with a single
  correction.
"""

ESTIMATES: Final = get_args(Estimate)

CROPS: Final = 4

TRACKED_ITERS: Final = 1
"""Maximum number of corrections of a frame that starts from the previous frame's code."""

_SHARE: Final = 0.07
"""Total area of the crops as a share of the frame's; with more, corrections would dominate."""

_MIN_CROP, _MAX_CROP, _CROP_STEP = 32, 64, TILE_STEP
"""Minimum, maximum and step of the crop size in LR pixels. Below 32, estimates vary too much; above
64, more crops would help more than larger ones."""


def check_estimate(estimate: str) -> Estimate:
    """Return `estimate`.

    Raises:
        InputError: It is not one of `ESTIMATES`.
    """
    for known in ESTIMATES:
        if isinstance(estimate, str) and estimate == known:
            return known
    raise InputError(f"estimate must be one of {', '.join(ESTIMATES)}, got {shown(estimate)}")


@dataclass(frozen=True)
class EstimationAreas:
    """The parts of a frame on which a network runs to estimate its code."""

    kind: Literal["whole", "crops", "tiles"]
    """The whole frame; a few small crops, in one batch; or large tiles, one by one to bound the
    memory."""
    tile_size: int = 0
    """Tile size in LR pixels."""

    def batches(self, plane: FramePlane) -> list[list[Area]]:
        """Return batches of equally large areas of a frame.

        Args:
            plane: Green plane of the frame.
        """
        if self.kind == "tiles":
            return [[area] for area in textured_areas(plane, self.tile_size, CROPS)]
        return [crop_areas(plane) if self.kind == "crops" else [_whole_area(plane)]]


WHOLE: Final = EstimationAreas("whole")
TEXTURED_CROPS: Final = EstimationAreas("crops")


class CodeEstimator:
    """Estimates the kernel codes of uploaded frames.

    Args:
        basis: Kernel basis of the codes.
        iters: Number of corrections of a frame.
    """

    def __init__(self, basis: KernelBasis, iters: int) -> None:
        self._basis = basis
        self._iters = iters

    def predict(self, frames: UploadedBatch, areas: EstimationAreas) -> NDArray[np.float32]:
        """Return the predictor's codes `[N,code_size]`, computed on `areas` of each frame."""
        if areas == WHOLE:
            return frames.predicted_codes()
        return np.stack([self._predicted(frames, n, areas) for n in range(len(frames.batch))])

    def loop(
        self, frames: UploadedBatch, predict: EstimationAreas, correct: EstimationAreas
    ) -> NDArray[np.float32]:
        """Run the correction loop on areas of each frame.

        Args:
            frames: The frames.
            predict: EstimationAreas on which the predictor runs.
            correct: EstimationAreas on which the corrections run.

        Returns:
            Codes h0..ht `[t+1,N,code_size]`.
        """
        each = [self._loop(frames, n, predict, correct) for n in range(len(frames.batch))]
        return np.stack(_padded_to_longest(each), axis=1)

    def track(
        self,
        frames: UploadedBatch,
        predict: EstimationAreas,
        correct: EstimationAreas,
        tracker: Tracker,
        turn: Turn | None = None,
    ) -> NDArray[np.float32]:
        """Estimate the code of the next frame of a clip.

        Args:
            frames: One frame.
            predict: EstimationAreas on which the predictor runs.
            correct: EstimationAreas on which the corrections run.
            tracker: State of the clip; unchanged if an error is raised.
            turn: Turn of the frame, which is waited for and ended; None if frames are processed one
                by one.

        Returns:
            At the beginning of a scene, the codes of `loop` `[t+1,1,code_size]`; otherwise the
            codes before and after the correction `[2,1,code_size]`.
        """
        small = thumbnail(frames.plane(0))
        if predict == WHOLE and frames.predicts:
            frames.ensure_predicted()
        if turn is not None:
            turn.wait()
        with tracker.undone_on_error():
            codes = self._tracked(frames, predict, correct, tracker, small)
        if turn is not None:
            turn.end()
        return codes

    def _tracked(
        self,
        frames: UploadedBatch,
        predict: EstimationAreas,
        correct: EstimationAreas,
        tracker: Tracker,
        small: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        if not tracker.is_same_scene(small):
            codes = self._loop(frames, 0, predict, correct)
            tracker.reset(codes[-1])
            return codes[:, None]
        predicted = self.predict(frames, predict)[0] if frames.predicts else None
        start = tracker.initial_code(predicted)
        # With iters=0, the predictor's code is tracked.
        corrections = min(TRACKED_ITERS, self._iters)
        corrected = self._corrected(frames, 0, correct, start, corrections)[-1]
        return np.stack([start, tracker.update(corrected)])[:, None]

    def _loop(
        self, frames: UploadedBatch, number: int, predict: EstimationAreas, correct: EstimationAreas
    ) -> NDArray[np.float32]:
        # None: the predictor's code for the whole frame stays on the device.
        start = None if predict == WHOLE else self._predicted(frames, number, predict)
        return self._corrected(frames, number, correct, start, self._iters)

    def _predicted(
        self, frames: UploadedBatch, number: int, areas: EstimationAreas
    ) -> NDArray[np.float32]:
        batches = areas.batches(frames.plane(number))
        codes = [frames.predict_areas(number, batch) for batch in batches]
        return trimmed_mean_code(np.concatenate(codes), self._basis)

    def _corrected(
        self,
        frames: UploadedBatch,
        number: int,
        areas: EstimationAreas,
        start: NDArray[np.float32] | None,
        corrections: int,
    ) -> NDArray[np.float32]:
        """Return one code per step, `[corrections+1,code_size]`."""
        batches = areas.batches(frames.plane(number))
        codes = [frames.correct(number, batch, start, corrections) for batch in batches]
        return trimmed_mean_code(np.concatenate(_padded_to_longest(codes), axis=1), self._basis)


def crop_side(height: int, width: int) -> int:
    """Return the crop size for a frame in LR pixels; it may exceed a small frame."""
    side = math.sqrt(_SHARE * height * width / CROPS)
    return int(np.clip(_CROP_STEP * round(side / _CROP_STEP), _MIN_CROP, _MAX_CROP))


def crop_areas(plane: FramePlane) -> list[Area]:
    """Return the crops of a frame.

    Args:
        plane: Green plane of the frame.

    Returns:
        The most textured areas; or the whole frame if it has less than twice the area of the crops,
        which would then save nothing.
    """
    height, width = plane.shape
    side = crop_side(height, width)
    if height * width < 2 * CROPS * side * side or min(height, width) < side:
        return [_whole_area(plane)]
    return textured_areas(plane, side, CROPS)


def textured_areas(plane: FramePlane, side: int, count: int) -> list[Area]:
    """Return the most textured, disjoint squares of a frame.

    Texture is the mean absolute difference of neighbouring pixels; see `FramePlane.texture`.

    Args:
        plane: Green plane of the frame.
        side: Side of the squares in LR pixels, a multiple of `TILE_STEP`; limited to the frame.
        count: Maximum number of squares.

    Returns:
        Their areas, most textured first.
    """
    height, width = plane.shape
    side = min(side, TILE_STEP * (min(height, width) // TILE_STEP))
    if side == 0:
        shortest = min(height, width)
        return [(slice(0, shortest), slice(0, shortest))]
    texture = plane.texture(side // 4)
    sums = np.lib.stride_tricks.sliding_window_view(texture, (4, 4)).sum(axis=(2, 3))
    chosen: list[tuple[int, int]] = []
    for index in np.argsort(-sums, axis=None, kind="stable"):
        row, column = divmod(int(index), sums.shape[1])
        if all(abs(row - r) >= 4 or abs(column - c) >= 4 for r, c in chosen):
            chosen.append((row, column))
            if len(chosen) == count:
                break
    tops_and_lefts = ((side // 4 * row, side // 4 * column) for row, column in chosen)
    return [(slice(y, y + side), slice(x, x + side)) for y, x in tops_and_lefts]


def _whole_area(plane: FramePlane) -> Area:
    height, width = plane.shape
    return slice(0, height), slice(0, width)


def _padded_to_longest(codes: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Repeat the last codes of loops that stopped early, so that all have the same length."""
    longest = max(len(each) for each in codes)
    return [
        np.concatenate((each, np.repeat(each[-1:], longest - len(each), axis=0))) for each in codes
    ]


def trimmed_mean_code(codes: NDArray[np.float32], basis: KernelBasis) -> NDArray[np.float32]:
    """Return the mean of codes whose sigma is in the middle half, for codes of the same blur.

    Args:
        codes: `[...,K,code_size]`.
        basis: The basis of the codes.

    Returns:
        float32 `[...,code_size]`.
    """
    order = np.argsort(basis.sigma_of_code(codes), axis=-1)
    count = codes.shape[-2]
    middle = order[..., count // 4 : count - count // 4, None]
    mean: NDArray[np.float32] = np.take_along_axis(codes, middle, axis=-2).mean(axis=-2)
    return mean
