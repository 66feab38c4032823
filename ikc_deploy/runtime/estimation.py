"""From a frame to its kernel code, without running the whole loop on the whole frame.

The blur is one for the frame, so a few crops tell it: the four with the most texture, because a
flat sky looks the same under every blur. All crops run in one batch, with a code each; the frame's
code is the mean of those in the middle of their order by sigma, so that a crop that misleads (a
caption, a saturated light) does not count. Then F runs once over the frame. docs/estimation.md has
what that loses and gains.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle import FrameIO
from ikc_deploy.errors import InputError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.runtime.passes import Passes
from ikc_deploy.runtime.tracking import Tracker

Estimate = Literal["full", "crops", "track"]
"""How the kernel code of a frame is found:

- "full": the loop on the whole frame (IKC, Algorithm 1);
- "crops": the loop on a few textured crops, then F over the frame;
- "track": for clips: as "crops", but from the last frame's code, with a single correction.
"""

ESTIMATES: Final = get_args(Estimate)

CROPS: Final = 4

_SHARE: Final = 0.07
"""Of the frame's area, for all crops together: the loop on more would cost as much as F."""

_SMALLEST, _LARGEST, _STEP = 32, 64, 8
"""Sides of crops in LR pixels. Below 32 the estimates scatter; above 64 more crops would be worth
more than larger ones."""

Area = tuple[slice, slice]
"""Rows and columns."""


def check_estimate(estimate: str) -> Estimate:
    """`estimate`, if there is such a way. Raises `InputError` with those there are."""
    for known in ESTIMATES:
        if estimate == known:
            return known
    raise InputError(f"estimate must be one of {', '.join(ESTIMATES)}, got {estimate!r}")


class Estimator:
    """Finds kernel codes of single frames, `[H,W,3]` uint8 or `[3,H,W]` float32 as `io` says."""

    def __init__(self, passes: Passes, basis: KernelBasis, io: FrameIO) -> None:
        self._passes = passes
        self._basis = basis
        self._io: FrameIO = io

    def on_tiles(self, frame: NDArray[Any], side: int) -> NDArray[np.float32]:
        """Codes h0..ht `[t+1,code_size]` of the loop on the most textured areas of this side.

        For frames whose whole does not fit. One area at a time, so that memory is bounded.
        """
        areas = self._areas(frame, side)
        return self._frame_code([self._passes.codes(self._cut(frame, [area])) for area in areas])

    def on_crops(self, frame: NDArray[Any]) -> NDArray[np.float32]:
        """Codes h0..ht `[t+1,code_size]` of the loop on the frame's crops."""
        return self._frame_code([self._passes.codes(self._crops(frame))])

    def track(self, frame: NDArray[Any], tracker: Tracker) -> NDArray[np.float32]:
        """Codes of the next frame of a clip: as `on_crops` where a scene begins, else two rows."""
        if not tracker.continues(plane(frame, self._io)):
            codes = self._frame_code([self._passes.codes(self._crops(frame))])
            tracker.begin(codes[-1])
            return codes
        crops = self._crops(frame)
        start = tracker.start(self._frame_code([self._passes.predicted(crops)[None]])[0])
        corrected = self._frame_code([self._passes.corrected(crops, start)[None]])[0]
        return np.stack([start, tracker.settle(corrected)])

    def _crops(self, frame: NDArray[Any]) -> NDArray[Any]:
        return self._cut(frame, self._areas(frame, crop_side(*plane(frame, self._io).shape)))

    def _areas(self, frame: NDArray[Any], side: int) -> list[Area]:
        return textured_areas(plane(frame, self._io), side, CROPS)

    def _cut(self, frame: NDArray[Any], areas: list[Area]) -> NDArray[Any]:
        lead = () if self._io == "uint8" else (slice(None),)
        return np.stack([frame[(*lead, *area)] for area in areas])

    def _frame_code(self, codes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return central_code(np.concatenate(codes, axis=1), self._basis)


def plane(frame: NDArray[Any], io: FrameIO) -> NDArray[Any]:
    """The green plane `[H,W]` of a frame, in 8-bit levels: brightness enough to find texture."""
    return frame[..., 1] if io == "uint8" else 255 * frame[1]


def crop_side(height: int, width: int) -> int:
    """Side of the crops of such a frame, in LR pixels; at least the frame's if it is small."""
    side = math.sqrt(_SHARE * height * width / CROPS)
    return int(np.clip(_STEP * round(side / _STEP), _SMALLEST, _LARGEST))


def textured_areas(levels: NDArray[Any], side: int, count: int) -> list[Area]:
    """The most textured squares of this side in `[H,W]` 8-bit levels, at most `count`, disjoint.

    Texture is the mean absolute difference of neighbouring pixels. The whole frame if it is hardly
    larger than the squares together: there would be nothing to save.
    """
    height, width = levels.shape
    if height * width < 2 * count * side * side or min(height, width) < side:
        return [(slice(0, height), slice(0, width))]
    texture = _block_texture(levels, side // 4)
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


def central_code(codes: NDArray[np.float32], basis: KernelBasis) -> NDArray[np.float32]:
    """One code `[...,code_size]` for codes `[...,K,code_size]` of the same blur.

    The mean of the codes in the middle half by sigma.
    """
    order = np.argsort(basis.sigma_of_code(codes), axis=-1)
    count = codes.shape[-2]
    middle = order[..., count // 4 : count - count // 4, None]
    mean: NDArray[np.float32] = np.take_along_axis(codes, middle, axis=-2).mean(axis=-2)
    return mean


def _block_texture(levels: NDArray[Any], block: int) -> NDArray[np.float32]:
    """Sums of absolute differences of neighbours in blocks of this side.

    Of every fourth row and column only: as good for choosing, and 4K frames come in time.
    """
    rows, columns = (size // block for size in levels.shape)
    trimmed = levels[: rows * block, : columns * block].astype(np.float32)
    return _steps_along_rows(trimmed, block) + _steps_along_rows(trimmed.T, block).T


def _steps_along_rows(levels: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    lines = levels[::4]
    steps = np.abs(np.diff(lines, axis=1, prepend=lines[:, :1]))
    sums: NDArray[np.float32] = steps.reshape(len(levels) // block, block // 4, -1, block).sum(
        axis=(1, 3)
    )
    return sums
