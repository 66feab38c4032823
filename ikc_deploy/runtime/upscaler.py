"""`Upscaler`: frames in, upscaled frames and the estimated blur out."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ikc_deploy.arguments import real_number, whole_number
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.backends.backend_choice import half_precision_warning, open_backends
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.estimation import Estimate, check_estimate
from ikc_deploy.runtime.frames import FrameBatch, Frames, as_frames
from ikc_deploy.runtime.given_blur import given_blur
from ikc_deploy.runtime.options import CLIP_ESTIMATE, UpscalerOptions
from ikc_deploy.runtime.pipeline import PipelineRun, Reading, ResultFuture
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.self_ensemble import check_host_frames
from ikc_deploy.runtime.stream import Stream
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.tracking import Sequencer, Tracker, Turn
from ikc_deploy.runtime.worker import UpscaleCall, UpscalingWorker
from ikc_deploy.runtime.worker_pool import QueuedFrame, WorkerPool
from ikc_deploy.text import shown

BlurArguments = tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None]
"""Sigma, kernel and code that a caller specifies; at most one is not None."""

_Item = TypeVar("_Item")
_Out = TypeVar("_Out")


class Upscaler(AbstractContextManager["Upscaler"]):
    """Upscales frames with the networks of one bundle; created by `ikc_deploy.load`.

    Thread-safe: calls from several threads run one after the other. `submit` returns at once and
    processes up to `streams` frames concurrently. Use the upscaler as a context manager, or call
    `close`. It cannot be used in a process that was forked after it was loaded.

    Buffers are allocated once per frame shape and kept for the last few shapes. If the device runs
    out of memory, the tile size is halved once (whole frames are split into tiles of half their
    longer side, unless `tiles.tile` is None), a `RuntimeWarning` is issued, and the frame is
    upscaled again.

    Args:
        bundle: An opened bundle.
        backend: The backend that runs the bundle's graphs. The upscaler owns and closes it.
        iters: Number of corrections, at least 0; None for the bundle's recommended number.
        streams: Number of frames that `submit`, `stream` and clips process concurrently on each
            device, at least 1; None for the backend's default.
        others: Backends of the same kind on other devices, also owned by the upscaler. The frames
            of `submit`, `stream` and clips are distributed over all devices.
        estimate: Default way to estimate the blur: "full", "crops" or "track" (see
            `ikc_deploy.runtime.estimation`). With "track", the calls must be the frames of one
            clip in time order; for several clips, use `stream`.
        early_stop: Change of the kernel code (Euclidean norm) below which the remaining
            corrections are skipped; None to run all of them.
        self_ensemble: Whether images are means over the eight flips and rotations of the frame,
            under one kernel code; frames must be in host memory.
        tiles: When frames are split into tiles, which share one kernel code; None for the default.

    Raises:
        InputError: An argument is of the wrong type or out of range.

    Example:
        >>> with ikc_deploy.load("x4.bundle", estimate="crops") as upscaler:  # doctest: +SKIP
        ...     known = upscaler(frame, sigma=1.8)
        ...     blind = upscaler(frame)
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        iters: int | None = UpscalerOptions.iters,
        streams: int | None = UpscalerOptions.streams,
        *,
        others: Sequence[Backend] = (),
        estimate: Estimate = UpscalerOptions.estimate,
        early_stop: float | None = UpscalerOptions.early_stop,
        self_ensemble: bool = UpscalerOptions.self_ensemble,
        tiles: TileSettings | None = None,
    ) -> None:
        if not isinstance(bundle, Bundle):
            raise InputError(f"bundle must be an opened Bundle, got {shown(bundle)}")
        for each in (backend, *others) if isinstance(others, tuple | list) else (others,):
            if not hasattr(each, "default_streams"):
                raise InputError(
                    f"expected an opened backend, got {shown(each)}; "
                    "ikc_deploy.load opens one by its name"
                )
        if not isinstance(tiles, TileSettings | None):
            raise InputError(f"tiles must be TileSettings or None, got {shown(tiles)}")
        if iters is None:
            iters = bundle.manifest.recommended_iters
        self.iters = iters = whole_number(iters, "iters", 0)
        self.streams = whole_number(
            backend.default_streams if streams is None else streams, "streams", 1
        )
        self.estimate = check_estimate(estimate)
        if early_stop is not None:
            early_stop = real_number(early_stop, "early_stop", 0, math.inf)
        self.early_stop = early_stop
        if not isinstance(self_ensemble, bool | np.bool_):
            raise InputError(f"self_ensemble must be True or False, got {shown(self_ensemble)}")
        self.self_ensemble = bool(self_ensemble)
        self.bundle = bundle
        self.backend = backend
        self._pool = WorkerPool(
            lambda each: UpscalingWorker(
                bundle, each, iters, tiles or TileSettings(), early_stop, self.self_ensemble
            ),
            [backend, *others],
        )
        self._tracker = Tracker()

    def __repr__(self) -> str:
        """Return the weights, the scale and the backend."""
        manifest, backend = self.bundle.manifest, self.backend
        return (
            f"<Upscaler of {manifest.name}, x{manifest.scale}, {manifest.precision}, {self.iters} "
            f"corrections, on {backend.name} ({backend.device})>"
        )

    @property
    def scale(self) -> int:
        """Scale factor: SR side divided by LR side."""
        return self.bundle.manifest.scale

    def __call__(
        self,
        frame: Any,
        *,
        sigma: ArrayLike | None = None,
        kernel: ArrayLike | None = None,
        code: ArrayLike | None = None,
        estimate: Estimate | None = None,
        steps: bool = False,
    ) -> Result:
        """Estimate the blur of an RGB frame, or of a batch of independent frames, and upscale it.

        If the blur is given by `sigma`, `kernel` or `code`, only the SR network runs. (Weights that
        also estimate noise and compression run the predictor first, unless `code` is given.)

        Args:
            frame: `[H,W,3]` or `[N,H,W,3]` uint8, or `[3,H,W]` or `[N,3,H,W]` float32 in [0,1] for
                a bundle with io "float", at least 8 pixels on each side. A numpy array, or an array
                that supports DLPack or `__cuda_array_interface__`, in host memory or on the
                backend's GPU. It is read without a copy and never modified; pending work on the
                array's stream is waited for on the device.
            sigma: Standard deviation of an isotropic Gaussian blur in HR pixels: a scalar, or one
                per frame `[N]`.
            kernel: Blur kernel `[k,k]` or `[N,k,k]` in HR pixels, centred, k odd, sum 1; k is at
                most the side of the basis (21). Smaller kernels are zero-padded.
            code: Kernel code `[code_size]` or `[N,code_size]`.
            estimate: Overrides the upscaler's `estimate` for this call. "track" accepts the frames
                of one clip, one at a time.
            steps: Whether to also return the image of every step.

        Returns:
            The `Result`. Its image is in the same memory as the frame (host or GPU).

        Raises:
            InputError: The frame or an argument is invalid, or the upscaler is closed.
            KernelError: The blur is outside the kernel basis, or the basis loses more than 15 % of
                the kernel.
            BackendError: The device failed, or the process was forked after loading.
            OutOfMemoryError: The device has too little memory, even with halved tiles.

        Example:
            >>> upscaler(frame, kernel=ikc_deploy.gaussian_kernel(1.5)).image  # doctest: +SKIP
        """
        worker = self._pool.first
        return worker(
            self._validated_call(frame, (sigma, kernel, code), estimate, steps, self._tracker)
        )

    def submit(
        self,
        frame: Any,
        *,
        sigma: ArrayLike | None = None,
        kernel: ArrayLike | None = None,
        code: ArrayLike | None = None,
        estimate: Estimate | None = None,
        steps: bool = False,
    ) -> ResultFuture[Result]:
        """Queue a frame, and return a future for its result.

        Frames start in the order of submission, `streams` of them concurrently, so that one is
        copied while another is computed. Each stream has its own buffers. The call blocks while
        each stream already has two unfinished frames: one in progress, one queued.

        Args:
            frame: See `__call__`. A numpy frame is copied, so it may be modified at once; a frame
                in GPU memory must not be modified until its result is ready.
            sigma: See `__call__`.
            kernel: See `__call__`.
            code: See `__call__`.
            estimate: See `__call__`. "track" is refused, because it needs frames in sequence.
            steps: See `__call__`.

        Returns:
            A future. `result(timeout)` waits for the `Result`, and raises what `__call__` would
            raise for the frame and the blur.

        Raises:
            InputError: The estimate is "track", the type of the frame is not supported, or the
                upscaler is closed.
            BackendError: The process was forked after loading.

        Example:
            >>> futures = [upscaler.submit(frame) for frame in frames]  # doctest: +SKIP
            >>> images = [future.result().image for future in futures]  # doctest: +SKIP
        """
        way = self.estimate if estimate is None else check_estimate(estimate)
        if way == "track" and sigma is None and kernel is None and code is None:
            raise InputError(
                "submitted frames are processed at the same time, so their blur cannot be "
                'tracked; use estimate="crops", or pass them to stream()'
            )
        pipeline = self._pool.pipeline(self.streams)
        array = self._as_frames(frame)
        own = array.copy() if isinstance(array, np.ndarray) else array
        blur = (sigma, kernel, code)
        check = partial(self._validated_call, own, blur, way, steps, Tracker())
        return ResultFuture(pipeline.submit(QueuedFrame(check)))

    def stream(
        self,
        frames: Iterable[Any],
        *,
        sigma: float | None = None,
        kernel: ArrayLike | None = None,
        code: ArrayLike | None = None,
        estimate: Estimate = CLIP_ESTIMATE,
        live: bool = False,
    ) -> Stream:
        """Return an iterator over the results for the frames of one clip, in order.

        Results are computed on demand. Up to `streams` frames are processed concurrently, so that
        one is copied while another is computed; with "track", kernel codes are still estimated in
        order.

        Args:
            frames: Frames `[H,W,3]` (or `[3,H,W]`, see `__call__`), all of one clip.
            sigma: Standard deviation of the blur of all frames in HR pixels; None to estimate it.
            kernel: Blur kernel `[k,k]` of all frames, see `__call__`.
            code: Kernel code `[code_size]` of all frames.
            estimate: How the blur of each frame is estimated.
            live: Whether `frames` is a live source such as a camera. A thread then reads it, and of
                the frames that arrive while another one is upscaled only the newest is kept.

        Returns:
            The `Stream`. Iterating raises what `__call__` and `frames` raise.

        Raises:
            InputError: `estimate` is unknown, `frames` is not iterable, more than one of `sigma`,
                `kernel` and `code` is given, or the upscaler is closed.
            KernelError: The blur is outside the kernel basis.
            BackendError: The process was forked after loading.

        Example:
            >>> with upscaler.stream(camera_frames, live=True) as results:  # doctest: +SKIP
            ...     for result in results:
            ...         show(result.image)
        """
        if not isinstance(frames, Iterable):
            raise InputError(f"frames must be iterable, got {shown(frames)}")
        settings = ClipSettings(sigma, check_estimate(estimate), kernel=kernel, code=code)
        given_blur(self.bundle, *settings.blur, 1)
        reading: Reading = "newest" if live else "on request"
        return Stream(
            run_clip(self, frames, lambda frame: frame, lambda _, result: result, settings, reading)
        )

    def close(self) -> None:
        """Free all buffers and graphs; a second call does nothing.

        Submitted frames in progress are finished, queued ones are cancelled. Does nothing in a
        forked process, because threads and devices belong to the parent.
        """
        self._pool.close()

    def __exit__(self, *_: object) -> None:
        """Close the upscaler at the end of the `with` block."""
        self.close()

    def _as_frames(self, frame: Any) -> Frames:
        """Return a frame as an array that the worker of any device can read."""
        array = as_frames(frame, self.backend)
        devices = len(self._pool.devices)
        if devices > 1 and not isinstance(array, np.ndarray):
            raise InputError(
                f"a frame in the memory of one GPU cannot be shared among {devices}; "
                "copy it to numpy, or load an Upscaler with one device"
            )
        return array

    def _validated_call(
        self,
        frame: Any,
        blur: BlurArguments,
        estimate: Estimate | None,
        steps: bool,
        tracker: Tracker,
        turn: Turn | None = None,
    ) -> UpscaleCall:
        """Validate the arguments of a call, and return the call."""
        batch = FrameBatch.of(frame, self.bundle.manifest.io, self.backend)
        if self.self_ensemble:
            check_host_frames(batch)
        given = given_blur(self.bundle, *blur, len(batch))
        way = self.estimate if estimate is None else check_estimate(estimate)
        if way == "track" and given is None and len(batch) > 1:
            raise InputError(
                f"a clip is tracked frame by frame, got a batch of {len(batch)}; pass them one "
                'by one, or estimate each frame with "crops"'
            )
        return UpscaleCall(batch, given, way, steps, tracker, turn)


@dataclass(frozen=True)
class ClipSettings:
    """Settings that all frames of a clip share."""

    sigma: float | None = None
    """Standard deviation of the blur in HR pixels; None to estimate the blur."""
    estimate: Estimate = CLIP_ESTIMATE
    """How the blur is estimated."""
    size: tuple[int, int] | None = None
    """Height and width in LR pixels; None if unknown before the first frame. If memory is too small
    for several frames of this size, they are processed one by one."""
    kernel: ArrayLike | None = None
    """Blur kernel `[k,k]`."""
    code: ArrayLike | None = None
    """Kernel code `[code_size]`."""

    @property
    def blur(self) -> BlurArguments:
        """Sigma, kernel and code."""
        return self.sigma, self.kernel, self.code


def run_clip(
    upscaler: Upscaler,
    items: Iterable[_Item],
    frame_of: Callable[[_Item], Any],
    finish: Callable[[_Item, Result], _Out],
    settings: ClipSettings,
    reading: Reading,
    ahead: int = 0,
    stop: threading.Event | None = None,
) -> PipelineRun[_Out]:
    """Upscale the frames of one clip; return an iterator over the outputs, in order.

    Up to `upscaler.streams` frames are processed concurrently, as in `Upscaler.stream`.

    Args:
        upscaler: The upscaler; the caller closes it after the run.
        items: Items that contain one frame each, in display order.
        frame_of: Returns the frame of an item: `[H,W,3]` (or `[3,H,W]`), which must not change.
        finish: Returns the output for an item and its result. Runs in the worker's thread, while
            other workers compute.
        settings: Blur and size of the frames.
        reading: When items are read.
        ahead: Number of outputs to compute before they are requested; 0 to compute on demand.
        stop: Event that ends the run after the frames in progress.

    Returns:
        The run. Iterating raises what the upscaler, `items` and the two functions raise.

    Raises:
        InputError: The upscaler is closed.
        BackendError: The process was forked after loading.
    """
    tracker, sequencer = Tracker(), Sequencer()
    streams, pool = upscaler.streams, upscaler._pool
    if settings.size is not None:
        known = any(each is not None for each in settings.blur)
        loops = not known and settings.estimate == "full"
        streams = min(streams, pool.first.frames_that_fit(settings.size, loops))
    in_parallel = streams * len(pool.devices) > 1 and settings.estimate == "track"

    def prepare(item: _Item) -> QueuedFrame:
        frame = upscaler._as_frames(frame_of(item))
        turn = sequencer.take() if in_parallel else None
        check = partial(
            upscaler._validated_call, frame, settings.blur, settings.estimate, False, tracker, turn
        )
        return QueuedFrame(check, turn, partial(finish, item))

    return pool.pipeline(streams).run(items, prepare, reading, ahead, stop, QueuedFrame.end)


def load_bundle(
    bundle: str | PathLike[str] | Bundle, options: UpscalerOptions | None = None
) -> Upscaler:
    """Return an `Upscaler` for a bundle folder or an opened bundle.

    Args:
        bundle: The folder, or the opened bundle.
        options: The options; None for the defaults.

    Returns:
        The `Upscaler`, owned by the caller.

    Raises:
        InputError: `bundle` or `options.tiles` is of the wrong type.
        BundleError: The bundle is missing, damaged or from another version.
        MissingExtraError: The backend is not installed.
        BackendError: The backend does not run on this machine.
        EngineError: The bundle has no engine for the backend.
    """
    if not isinstance(bundle, Bundle | str | PathLike):
        raise InputError(f"a bundle is a folder or an opened Bundle, got {shown(bundle)}")
    chosen = options or UpscalerOptions()
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    backends = open_backends(chosen.backend, opened, chosen)
    message = half_precision_warning(opened, backends[0])
    if message is not None:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return Upscaler(
        opened,
        backends[0],
        chosen.iters,
        chosen.streams,
        others=backends[1:],
        estimate=chosen.estimate,
        early_stop=chosen.early_stop,
        self_ensemble=chosen.self_ensemble,
        tiles=chosen.tiles,
    )
