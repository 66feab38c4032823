"""`Upscaler`: frames in, upscaled frames and the estimated blur out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from ikc_deploy.arguments import real_number, whole_number
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.backends.backend_choice import half_precision_warning, open_backends
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.dispatcher import Dispatcher
from ikc_deploy.runtime.estimation import Estimate, check_estimate
from ikc_deploy.runtime.given_blur import BlurSettings
from ikc_deploy.runtime.options import CLIP_ESTIMATE, UpscalerOptions
from ikc_deploy.runtime.pipeline import ResultFuture, RunSettings
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.stream import Stream
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.worker import UpscalingWorker
from ikc_deploy.runtime.worker_pool import WorkerPool
from ikc_deploy.text import shown


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
        pool = WorkerPool(
            lambda each: UpscalingWorker(
                bundle, each, iters, tiles or TileSettings(), early_stop, self.self_ensemble
            ),
            [backend, *others],
        )
        self.dispatcher = Dispatcher(bundle, backend, pool, self.streams, self.self_ensemble)
        """Dispatcher of all frames to the workers; `ikc_deploy.video` passes clips to it."""

    def __repr__(self) -> str:
        """Return the weights, the scale and the backend."""
        manifest, backend = self.bundle.manifest, self.backend
        return (
            f"<Upscaler of {manifest.name}, x{manifest.scale}, {manifest.precision}, {self.iters} "
            f"corrections, on {backend.name} ({backend.device})>"
        )

    def __reduce__(self) -> NoReturn:
        """Raise `InputError`: an upscaler cannot be pickled or copied."""
        raise InputError(
            "an Upscaler cannot be pickled or copied, because it holds devices and threads; load "
            "one in each process"
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
        blur = BlurSettings(sigma, kernel, code, self.estimate if estimate is None else estimate)
        return self.dispatcher.call(frame, blur, steps)

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
        blur = BlurSettings(sigma, kernel, code, self.estimate if estimate is None else estimate)
        return self.dispatcher.submit(frame, blur, steps)

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
            frames: Frames `[H,W,3]` (or `[3,H,W]`, see `__call__`), all of one clip. Up to
                `streams` frames are read before the first result is returned; a source that waits
                for that result needs `streams=1`.
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
        run = self.dispatcher.run(
            frames,
            lambda frame: frame,
            lambda _, result: result,
            BlurSettings(sigma, kernel, code, estimate),
            RunSettings("newest" if live else "on request"),
        )
        return Stream(run)

    def close(self) -> None:
        """Free all buffers and graphs; a second call does nothing.

        Submitted frames in progress are finished, queued ones are cancelled. Does nothing in a
        forked process, because threads and devices belong to the parent.
        """
        self.dispatcher.close()

    def __exit__(self, *_: object) -> None:
        """Close the upscaler at the end of the `with` block."""
        self.close()


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
