"""`UpscalingWorker`: runs calls on one backend, all in the same steps.

Validation (by the caller), one upload, codes from areas, images, `Result`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError, OutOfMemoryError
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.estimation import (
    TEXTURED_CROPS,
    WHOLE,
    CodeEstimator,
    Estimate,
    EstimationAreas,
)
from ikc_deploy.runtime.executor import NetworkExecutor, UploadedBatch
from ikc_deploy.runtime.frames import FrameBatch, FrameShape
from ikc_deploy.runtime.given_blur import GivenBlur
from ikc_deploy.runtime.memory import PixelMemory
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.self_ensemble import averaged
from ikc_deploy.runtime.tile_planner import TilePlanner
from ikc_deploy.runtime.tiled_upscaler import TiledUpscaler
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.tracking import Tracker, Turn


@dataclass(frozen=True, eq=False)
class UpscaleCall:
    """One validated call: the frames and how to upscale them."""

    frames: FrameBatch
    given: GivenBlur | None
    """Known blur of the frames; None to estimate it."""
    estimate: Estimate
    steps: bool
    """Whether to return the images of all steps."""
    tracker: Tracker
    """State of the frame's clip, for the estimate "track"."""
    turn: Turn | None = None
    """Turn of the frame to use the tracker, if frames of the clip are upscaled in parallel."""

    @property
    def loops(self) -> bool:
        """Whether the loop runs on whole frames, provided that they fit into memory."""
        return self.given is None and self.estimate == "full"

    def undone_on_error(self) -> AbstractContextManager[None]:
        """Return a context that restores the tracker if the block raises.

        With a turn it does nothing, because later frames may have used the tracker already.
        """
        return nullcontext() if self.turn else self.tracker.undone_on_error()


class UpscalingWorker:
    """Runs calls on one backend with its own buffers. Thread-safe: calls run one after the other.

    Args:
        bundle: The bundle.
        backend: The backend; the worker owns it.
        iters: Number of corrections.
        tiles: When frames are cut into tiles.
        early_stop: As in `UpscalerOptions`.
        self_ensemble: As in `UpscalerOptions`; frames must be in host memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        iters: int,
        tiles: TileSettings,
        early_stop: float | None = None,
        self_ensemble: bool = False,
    ) -> None:
        self.backend = backend
        self._self_ensemble = self_ensemble
        self._basis = bundle.basis
        self._executor = NetworkExecutor(backend, bundle, iters, early_stop)
        self._estimator = CodeEstimator(bundle.basis, iters)
        self._tiled_upscaler = TiledUpscaler(self._executor, bundle)
        pixel = PixelMemory.of_bundle(bundle.manifest, backend.device == "cpu")
        self._planner = TilePlanner(tiles, backend.free_memory(), pixel, iters > 0)
        self._lock = threading.Lock()
        self._closed = False
        self._known_codes: NDArray[np.float32] | None = None
        """Codes of the call in progress once estimated, for a retry after memory ran out."""

    def __call__(self, call: UpscaleCall) -> Result:
        """Run a call.

        If it fails, its tracker is unchanged, except for a frame with a turn whose code was already
        estimated.

        Raises:
            InputError: The worker is closed, or memory is too small even for the smallest tile.
            BackendError: The device failed.
            OutOfMemoryError: The device has too little memory, even with halved tiles.
        """
        started = time.perf_counter()
        with self._lock:
            if self._closed:
                raise InputError("this Upscaler is closed; create a new one with ikc_deploy.load()")
            self._executor.restart_clock()
            self._known_codes = None
            with call.undone_on_error():
                try:
                    images, codes = self._upscaled(call)
                except OutOfMemoryError as error:
                    self._planner.halve_tile_size(call.frames.shape, call.loops, error)
                    self._executor.forget()
                    images, codes = self._upscaled(call)
            timings = dict(self._executor.timings)
        timings["total"] = 1e3 * (time.perf_counter() - started)
        if call.frames.single:
            images, codes = [image[0] for image in images], codes[:, 0]
        basis, code = self._basis, codes[-1]
        return Result(
            image=images[-1],
            codes=codes,
            sigma=_number(basis.sigma_of_code(code)),
            kernel=basis.decode(code),
            noise=_number(basis.noise_of_code(code)),
            jpeg_quality=_number(basis.jpeg_quality_of_code(code)),
            timings=timings,
            corrections=0 if call.given is not None else min(len(codes) - 1, self._executor.iters),
            steps=tuple(images) if call.steps else (),
        )

    def frames_that_fit(self, size: tuple[int, int], loop: bool) -> int:
        """Return the number of frames that fit into memory at the same time, at least 1.

        Args:
            size: Height and width of the frames in LR pixels.
            loop: Whether the correction loop runs on whole frames.
        """
        return self._planner.frames_that_fit(FrameShape(1, *size), loop)

    def close(self) -> None:
        """Wait for the call in progress, then free all buffers and graphs; may be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                # The backend waits for work that still uses the sessions' buffers.
                self.backend.close()
                self._executor.forget()

    def _upscaled(self, call: UpscaleCall) -> tuple[list[Any], NDArray[np.float32]]:
        """Return images `[N,...]`, of all steps if requested, and codes `[t+1,N,code_size]`."""
        tile_size = self._planner.tile_size(call.frames.shape, call.loops)
        if call.loops and tile_size is None and self._known_codes is None:
            # Codes and images of whole frames are computed together, step by step.
            images, codes = self._executor.upload(call.frames, whole=True).loop(call.steps)
        else:
            frames, codes = self._uploaded_with_codes(call, tile_size)
            shown = codes if call.steps else codes[-1:]
            images = [self._tiled_upscaler.upscale(frames, each, tile_size) for each in shown]
        if self._self_ensemble:
            self._known_codes = codes
            shown = codes if call.steps else codes[-1:]
            images = averaged(images, list(shown), call.frames, self._basis, self._images)
        return images, codes

    def _uploaded_with_codes(
        self, call: UpscaleCall, tile_size: int | None
    ) -> tuple[UploadedBatch, NDArray[np.float32]]:
        """Upload the frames of a call, and estimate their codes unless they are known."""
        if self._known_codes is not None:
            return self._executor.upload(call.frames, whole=tile_size is None), self._known_codes
        predict = self._planner.predict_areas(call.frames.shape, tile_size)
        whole = tile_size is None or (predict == WHOLE and self._predicts(call))
        frames = self._executor.upload(call.frames, whole)
        correct = TEXTURED_CROPS
        if call.loops and tile_size is not None:
            correct = EstimationAreas("tiles", tile_size)
        self._known_codes = self._codes(frames, call, predict, correct)
        return frames, self._known_codes

    def _codes(
        self,
        frames: UploadedBatch,
        call: UpscaleCall,
        predict: EstimationAreas,
        correct: EstimationAreas,
    ) -> NDArray[np.float32]:
        """Return the codes `[t+1,N,code_size]` of frames: given, tracked, or from the loop."""
        if call.given is not None:
            codes = call.given.codes
            if self._predicts(call):
                codes = self._basis.take_levels(codes, self._estimator.predict(frames, predict))
            return codes[None]
        if call.estimate == "track":
            return self._estimator.track(frames, predict, correct, call.tracker, call.turn)
        return self._estimator.loop(frames, predict, correct)

    def _predicts(self, call: UpscaleCall) -> bool:
        """Return whether a call needs the predictor: a known sigma or kernel lacks the levels."""
        given = call.given
        return given is None or bool(self._basis.levels and not given.with_levels)

    def _images(
        self, batch: FrameBatch, codes: Sequence[NDArray[np.float32]]
    ) -> Iterator[NDArray[Any]]:
        """Yield the images of frames for each of some codes `[N,code_size]`."""
        tile_size = self._planner.tile_size(batch.shape, loop=False)
        frames = self._executor.upload(batch, whole=tile_size is None)
        for code in codes:
            yield self._tiled_upscaler.upscale(frames, code, tile_size)


def _number(values: NDArray[np.float64] | None) -> Any:
    """Return a 0-d array as a float, and other values unchanged."""
    return float(values) if values is not None and values.ndim == 0 else values
