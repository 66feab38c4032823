"""Estimation of a frame's kernel code without running the whole loop on the whole frame.

The predictor is cheap, so it runs on the whole frame. A correction needs an SR image, which is
expensive. But the blur is the same in all of the frame, so a few crops are enough: the four with
the most texture, because a flat sky looks the same with every blur. They are corrected in one
batch, each with its own code. The frame's code is the mean of the middle half of these codes in
order of sigma, so that misleading crops (a caption, a saturated light) are ignored. Then the SR
network F runs once on the frame. docs/estimation.md reports losses and gains.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import FrameIO
from ikc_deploy.errors import InputError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.runtime.executor import NetworkExecutor
from ikc_deploy.runtime.tiling import TILE_STEP
from ikc_deploy.runtime.tracking import Tracker
from ikc_deploy.text import shown

Estimate = Literal["full", "crops", "track"]
"""Way to estimate the kernel code of a frame:

- "full": the loop on the whole frame (IKC, Algorithm 1);
- "crops": the predictor on the whole frame, corrections on a few textured crops, then F once;
- "track" (for clips): as "crops", but from the last frame's code, with a single correction.
"""

ESTIMATES: Final = get_args(Estimate)

CROPS: Final = 4

TRACKED_ITERS: Final = 1
"""Maximum number of corrections of a frame that starts from the code of the last one."""

_SHARE: Final = 0.07
"""Share of the frame's area for all crops together: corrections on more would take as long as F."""

_MIN_CROP, _MAX_CROP, _CROP_STEP = 32, 64, TILE_STEP
"""Minimum, maximum and step of the sides of crops in LR pixels. Below 32 the estimates vary too
much; above 64 more crops would help more than larger ones."""

_EDGE: Final = 16
"""Maximum difference of neighbouring pixels, in 8-bit levels, that counts as texture."""

Area = tuple[slice, slice]
"""Rows and columns of a frame, in LR pixels."""


def check_estimate(estimate: str) -> Estimate:
    """Return `estimate` if it is one of `ESTIMATES`.

    Raises:
        InputError: It is not.
    """
    for known in ESTIMATES:
        if isinstance(estimate, str) and estimate == known:
            return known
    raise InputError(f"estimate must be one of {', '.join(ESTIMATES)}, got {shown(estimate)}")


class Estimator:
    """An estimator of the kernel codes of single frames on the host.

    Frames are `[H,W,3]` uint8 or `[3,H,W]` float32 in [0,1], as `io` specifies.

    Args:
        executor: Runs the networks.
        basis: Kernel basis of the codes.
        io: Type of the frames.
    """

    def __init__(self, executor: NetworkExecutor, basis: KernelBasis, io: FrameIO) -> None:
        self._executor = executor
        self._basis = basis
        self._io: FrameIO = io

    def loop(self, frame: NDArray[Any], tile_size: int | None) -> NDArray[np.float32]:
        """Run the correction loop on crops of a frame.

        Args:
            frame: The frame.
            tile_size: Side in LR pixels of the tiles in which the frame is upscaled; None if it
                is upscaled whole.

        Returns:
            Codes h0..ht `[t+1,code_size]`.
        """
        return self._corrected(frame, self.predict(frame, tile_size), self._executor.iters)

    def on_tiles(self, frame: NDArray[Any], tile_size: int) -> NDArray[np.float32]:
        """Run the correction loop on the most textured tiles of a frame.

        This serves "full" for frames that do not fit into memory as a whole. The tiles run one by
        one, which bounds the memory.

        Args:
            frame: The frame.
            tile_size: Side of the tiles in LR pixels.

        Returns:
            Codes h0..ht `[t+1,code_size]`.
        """
        start, iters = self.predict(frame, tile_size), self._executor.iters
        tiles = self._tiles(frame, tile_size)
        return self._frame_code([self._executor.correct(tile, start, iters) for tile in tiles])

    def track(
        self, frame: NDArray[Any], tile_size: int | None, tracker: Tracker
    ) -> NDArray[np.float32]:
        """Estimate the code of the next frame of a clip.

        Args:
            frame: The frame.
            tile_size: As in `loop`.
            tracker: State of the clip; it is updated.

        Returns:
            Codes `[t+1,code_size]` as `loop` at the beginning of a scene; otherwise
            `[2,code_size]`, before and after the correction.
        """
        if not tracker.is_same_scene(green_channel(frame, self._io)):
            codes = self.loop(frame, tile_size)
            tracker.reset(codes[-1])
            return codes
        predicted = self.predict(frame, tile_size) if self._executor.predicts else None
        start = tracker.initial_code(predicted)
        # Without corrections, the predictor's code is tracked.
        corrected = self._corrected(frame, start, min(TRACKED_ITERS, self._executor.iters))[-1]
        return np.stack([start, tracker.update(corrected)])

    def predict(self, frame: NDArray[Any], tile_size: int | None) -> NDArray[np.float32]:
        """Return the first code `[code_size]`, of the whole frame or of textured tiles."""
        if not self._executor.predicts:
            return self._executor.predict(frame[None])[0]
        views = [frame[None]] if tile_size is None else self._tiles(frame, tile_size)
        return self._frame_code([self._executor.predict(view)[None] for view in views])[0]

    def _corrected(
        self, frame: NDArray[Any], code: NDArray[np.float32], corrections: int
    ) -> NDArray[np.float32]:
        crops = self._cut(frame, crop_areas(green_channel(frame, self._io)))
        return self._frame_code([self._executor.correct(crops, code, corrections)])

    def _tiles(self, frame: NDArray[Any], tile_size: int) -> list[NDArray[Any]]:
        areas = textured_areas(green_channel(frame, self._io), tile_size, CROPS)
        return [self._cut(frame, [area]) for area in areas]

    def _cut(self, frame: NDArray[Any], areas: list[Area]) -> NDArray[Any]:
        lead = () if self._io == "uint8" else (slice(None),)
        return np.stack([frame[(*lead, *area)] for area in areas])

    def _frame_code(self, codes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return one code for each step, from codes `[t+1,N,code_size]` of several areas."""
        return trimmed_mean_code(np.concatenate(codes, axis=1), self._basis)


def green_channel(frame: NDArray[Any], io: FrameIO) -> NDArray[Any]:
    """Return the green plane `[H,W]` of a frame in 8-bit levels.

    It is close enough to the brightness to find texture.
    """
    return frame[..., 1] if io == "uint8" else 255 * frame[1]


def crop_side(height: int, width: int) -> int:
    """Return the side in LR pixels of the crops of a frame; it may exceed that of a small frame."""
    side = math.sqrt(_SHARE * height * width / CROPS)
    return int(np.clip(_CROP_STEP * round(side / _CROP_STEP), _MIN_CROP, _MAX_CROP))


def crop_areas(levels: NDArray[Any]) -> list[Area]:
    """Return the areas of the crops of a frame.

    Args:
        levels: One plane of the frame `[H,W]` in 8-bit levels.

    Returns:
        The most textured areas; or the whole frame if it is less than twice as large as its crops,
        as crops would save nothing.
    """
    height, width = levels.shape
    side = crop_side(height, width)
    if height * width < 2 * CROPS * side * side or min(height, width) < side:
        return [(slice(0, height), slice(0, width))]
    return textured_areas(levels, side, CROPS)


def textured_areas(levels: NDArray[Any], side: int, count: int) -> list[Area]:
    """Return the most textured squares of a frame, disjoint.

    Texture is the mean absolute difference of neighbouring pixels. Differences are limited to
    `_EDGE`; otherwise one hard edge would outweigh all texture.

    Args:
        levels: One plane of the frame `[H,W]` in 8-bit levels.
        side: Side of the squares in LR pixels, a multiple of `TILE_STEP`; smaller if the frame is.
        count: Maximum number of squares.

    Returns:
        Their areas, most textured first.
    """
    height, width = levels.shape
    side = min(side, TILE_STEP * (min(height, width) // TILE_STEP))
    if side == 0:
        shortest = min(height, width)
        return [(slice(0, shortest), slice(0, shortest))]
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


def trimmed_mean_code(codes: NDArray[np.float32], basis: KernelBasis) -> NDArray[np.float32]:
    """Return the mean of the middle half of codes of the same blur, in order of sigma.

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


def _block_texture(levels: NDArray[Any], block: int) -> NDArray[np.float32]:
    """Return sums of absolute differences of neighbours in blocks of this side.

    Only every fourth row and column counts, which chooses equally well and is fast enough for 4K.
    """
    rows, columns = (size // block for size in levels.shape)
    trimmed = levels[: rows * block, : columns * block].astype(np.float32)
    return _steps_along_rows(trimmed, block) + _steps_along_rows(trimmed.T, block).T


def _steps_along_rows(levels: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    lines = levels[::4]
    steps = np.minimum(np.abs(np.diff(lines, axis=1, prepend=lines[:, :1])), _EDGE)
    sums: NDArray[np.float32] = steps.reshape(len(levels) // block, block // 4, -1, block).sum(
        axis=(1, 3)
    )
    return sums
