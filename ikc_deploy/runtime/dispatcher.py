"""`Dispatcher`: validates frames and assigns them to the workers of an `Upscaler`.

All frames pass through it: those of single calls, submitted ones, and those of streams, clips and
cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.frames import FrameBatch, Frames, as_frames
from ikc_deploy.runtime.given_blur import BlurSettings, given_blur
from ikc_deploy.runtime.pipeline import PipelineRun, ResultFuture, RunSettings
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.self_ensemble import check_host_frames
from ikc_deploy.runtime.tracking import Sequencer, Tracker, Turn
from ikc_deploy.runtime.worker import UpscaleCall
from ikc_deploy.runtime.worker_pool import QueuedFrame, WorkerPool

_Item = TypeVar("_Item")
_Out = TypeVar("_Out")

_NOT_TRACKED: Final = (
    "submitted frames are processed at the same time, so their blur cannot be tracked; use "
    'estimate="crops", or pass them to stream()'
)


class Dispatcher:
    """Validates frames and assigns them to workers.

    Args:
        bundle: The bundle of the workers.
        backend: Backend of the first device, whose arrays are accepted as frames.
        pool: The workers; the dispatcher owns and closes them.
        streams: Number of frames that are processed concurrently on each device.
        self_ensemble: Whether the workers average over flips and rotations.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        pool: WorkerPool,
        streams: int,
        self_ensemble: bool,
    ) -> None:
        self._bundle = bundle
        self._backend = backend
        self._pool = pool
        self._streams = streams
        self._self_ensemble = self_ensemble
        self._tracker = Tracker()

    def call(self, frame: Any, blur: BlurSettings, steps: bool) -> Result:
        """Upscale a frame or a batch and return its result; see `Upscaler.__call__`."""
        worker = self._pool.first
        return worker(self._validated(frame, blur, self._tracker, steps=steps))

    def submit(self, frame: Any, blur: BlurSettings, steps: bool) -> ResultFuture[Result]:
        """Queue a frame or a batch, and return the future of its result; see `Upscaler.submit`.

        Raises:
            InputError: The blur is to be tracked, the type of the frame is not supported, or the
                upscaler is closed.
            BackendError: The process was forked after loading.
        """
        if blur.estimate == "track" and not blur.is_known:
            raise InputError(_NOT_TRACKED)
        pipeline = self._pool.pipeline(self._streams)
        array = self._as_frames(frame)
        own = array.copy() if isinstance(array, np.ndarray) else array
        check = partial(self._validated, own, blur, Tracker(), steps=steps)
        return ResultFuture(pipeline.submit(QueuedFrame(check)))

    def run(
        self,
        items: Iterable[_Item],
        frame_of: Callable[[_Item], Any],
        finish: Callable[[_Item, Result], _Out],
        blur: BlurSettings,
        settings: RunSettings,
        size: tuple[int, int] | None = None,
    ) -> PipelineRun[_Out]:
        """Upscale the frames of one clip; return an iterator over the outputs, in order.

        Args:
            items: Items that contain one frame each, in display order.
            frame_of: Returns the frame of an item: `[H,W,3]` (or `[3,H,W]`), which must not change.
            finish: Returns the output for an item and its result. Runs in the worker's thread,
                while other workers compute.
            blur: Blur of all frames.
            settings: When items are read and outputs computed.
            size: Height and width of the frames in LR pixels; None if unknown before the first
                frame. If memory is too small for several frames of this size, they are processed
                one by one.

        Returns:
            The run. Iterating raises what the workers, `items` and the two functions raise.

        Raises:
            InputError: The upscaler is closed, or more than one of sigma, kernel and code is given.
            KernelError: The blur is outside the kernel basis.
            BackendError: The process was forked after loading.
        """
        given_blur(self._bundle, blur, 1)
        tracker, sequencer, streams = Tracker(), Sequencer(), self._streams
        if size is not None:
            loops = not blur.is_known and blur.estimate == "full"
            streams = min(streams, self._pool.first.frames_that_fit(size, loops))
        in_parallel = streams * len(self._pool.devices) > 1 and blur.estimate == "track"

        def prepare(item: _Item) -> QueuedFrame:
            frame = self._as_frames(frame_of(item))
            turn = sequencer.take() if in_parallel else None
            check = partial(self._validated, frame, blur, tracker, turn)
            return QueuedFrame(check, turn, partial(finish, item))

        return self._pool.pipeline(streams).run(items, prepare, settings, QueuedFrame.end)

    def close(self) -> None:
        """Finish the frames in progress, cancel the queued ones, and close the workers."""
        self._pool.close()

    def _as_frames(self, frame: Any) -> Frames:
        """Return a frame as an array that the worker of any device can read."""
        array = as_frames(frame, self._backend)
        devices = len(self._pool.devices)
        if devices > 1 and not isinstance(array, np.ndarray):
            raise InputError(
                f"a frame in the memory of one GPU cannot be shared among {devices}; "
                "copy it to numpy, or load an Upscaler with one device"
            )
        return array

    def _validated(
        self,
        frame: Any,
        blur: BlurSettings,
        tracker: Tracker,
        turn: Turn | None = None,
        steps: bool = False,
    ) -> UpscaleCall:
        """Validate a frame and its blur, and return the call of a worker."""
        batch = FrameBatch.of(frame, self._bundle.manifest.io, self._backend)
        if self._self_ensemble:
            check_host_frames(batch)
        given = given_blur(self._bundle, blur, len(batch))
        if blur.estimate == "track" and given is None and len(batch) > 1:
            raise InputError(
                f"a clip is tracked frame by frame, got a batch of {len(batch)}; pass them one "
                'by one, or estimate each frame with "crops"'
            )
        return UpscaleCall(batch, given, blur.estimate, steps, tracker, turn)
