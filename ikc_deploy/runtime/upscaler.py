"""`Upscaler`: frames in, upscaled frames and the estimated blur out."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.arguments import real_array, whole_number
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError, KernelError, OutOfMemoryError
from ikc_deploy.kernels.kernel_checks import MAX_LOST, MAX_NEGATIVE, check_kernels, projection_error
from ikc_deploy.runtime.backends import (
    half_precision_warning,
    open_backend,
)
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.estimation import Estimate, Estimator, check_estimate
from ikc_deploy.runtime.executor import NetworkExecutor
from ikc_deploy.runtime.frames import Frames, accept, check_frames, frame_shape
from ikc_deploy.runtime.memory import available_memory
from ikc_deploy.runtime.options import CLIP_ESTIMATE, UpscalerOptions
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.stream import Stream
from ikc_deploy.runtime.tiled_upscaler import TiledUpscaler
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.tracking import Tracker
from ikc_deploy.runtime.worker_pool import ResultFuture, WorkerPool
from ikc_deploy.text import shown

_CODE_WORDS: Final = "code must be one finite kernel code, or one for each frame; its values"

_LONGEST_CODE: Final = 4.0
"""Maximum Euclidean norm of a given kernel code. Codes of kernels with sum 1 have a norm of at most
1; codes from a network may exceed it."""

FRAMES_PER_STREAM: Final = 2
"""Maximum number of unfinished submitted frames for each stream: one in progress, one waiting."""


class Upscaler(AbstractContextManager["Upscaler"]):
    """An upscaler of frames with one bundle on one backend; `ikc_deploy.load` creates it.

    Buffers are allocated once for each frame shape and kept for the last few shapes. Any thread may
    call it; calls run one after the other. `submit` does not wait: up to `streams` frames are
    processed at the same time. Use it as a context manager, or call `close`.

    If the device runs out of memory, the tile size (or the side of whole frames, unless
    `tiles.tile` is None) is halved once, with a `RuntimeWarning`, and the frame is upscaled again.

    Args:
        bundle: An opened bundle.
        backend: The backend that runs its graphs. The upscaler owns it and closes it.
        iters: Number of corrections, at least 0; None for the bundle's recommended number.
        streams: Number of frames that `submit` processes at the same time, at least 1.
        estimate: Default way to estimate the blur: "full", "crops" or "track" (see
            `ikc_deploy.runtime.estimation`). With "track", the calls must be the frames of one
            clip in time order; for several clips, use `stream`.
        tiles: When frames are cut into tiles, which share one kernel code; None for the default.

    Raises:
        InputError: `iters`, `streams`, `estimate` or `tiles` is invalid.

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
        streams: int = UpscalerOptions.streams,
        *,
        estimate: Estimate = UpscalerOptions.estimate,
        tiles: TileSettings | None = None,
    ) -> None:
        if not isinstance(tiles, TileSettings | None):
            raise InputError(f"tiles must be TileSettings or None, got {shown(tiles)}")
        if iters is None:
            iters = bundle.manifest.recommended_iters
        self.iters = iters = whole_number(iters, "iters", 0)
        self.streams = whole_number(streams, "streams", 1)
        self.estimate = check_estimate(estimate)
        self.bundle = bundle
        self.backend = backend
        self._tiles = tiles or TileSettings()
        self._lanes: list[Upscaler] = []
        self._pool: WorkerPool[Upscaler, Result] | None = None
        self._pool_lock = threading.Lock()
        self._io = bundle.manifest.io
        self._executor = NetworkExecutor(backend, bundle, iters)
        self._estimator = Estimator(self._executor, bundle.basis, self._io)
        free = available_memory() if backend.device == "cpu" else None
        self._tiled_upscaler = TiledUpscaler(self._executor, bundle, self._tiles, free)
        self._tracker = Tracker()
        self._lock = threading.Lock()
        self._closed = False

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
        """Upscale one RGB frame, or a batch of independent frames, and estimate the blur.

        If `sigma`, `kernel` or `code` specifies the blur, only the SR network runs. (If the weights
        also estimate noise and compression, the predictor runs first, unless `code` is given.)

        Args:
            frame: `[H,W,3]` or `[N,H,W,3]` uint8, or `[3,H,W]` or `[N,3,H,W]` float32 in [0,1] for
                a bundle with io "float". Sides have at least 8 pixels. An array of numpy, or of
                another library with DLPack or `__cuda_array_interface__`, in host memory or on the
                backend's GPU. It is read without a copy, and not changed; work that is queued on it
                is waited for on the device.
            sigma: Standard deviation of an isotropic Gaussian blur in HR pixels: one, or one for
                each frame `[N]`.
            kernel: Blur kernel `[k,k]` or `[N,k,k]`, centred, sum 1.
            code: Kernel code `[code_size]` or `[N,code_size]`.
            estimate: Way to estimate the blur in this call; None for that of the upscaler. "track"
                takes the frames of one clip, one at a time.
            steps: Whether to return the image of every step, too.

        Returns:
            The `Result`, with its image where the frame is.

        Raises:
            InputError: The frame or an argument is invalid, or the upscaler is closed.
            KernelError: The blur is outside the kernel basis, or the basis loses more than 15 % of
                the kernel.
            BackendError: The device failed.
            OutOfMemoryError: The device has too little memory, also with halved tiles.

        Example:
            >>> upscaler(frame, kernel=ikc_deploy.gaussian_kernel(1.5)).image  # doctest: +SKIP
        """
        return self._upscale(frame, (sigma, kernel, code), estimate, steps, self._tracker)

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
        """Queue a frame and return a future of its result.

        Frames start in the order of submission, `streams` of them at the same time, so that one is
        copied while another is computed. Each stream has its own buffers. This call blocks while
        `FRAMES_PER_STREAM` frames for each stream are unfinished.

        Args:
            frame: As in a call. A numpy frame is copied and may be changed at once; a frame in GPU
                memory must not change until its result is ready.
            sigma: As in a call.
            kernel: As in a call.
            code: As in a call.
            estimate: As in a call, except "track", which needs one frame after the other.
            steps: As in a call.

        Returns:
            A future: `result(timeout)` waits and returns the `Result`. It raises the errors of the
            frame and the blur, as a call does.

        Raises:
            InputError: The blur would be tracked, the frame is of an unknown type, or the upscaler
                is closed.

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
        pool = self._open_pool()
        taken = accept(frame, self.backend)
        mine = taken.copy() if isinstance(taken, np.ndarray) else taken
        return pool.submit(
            lambda lane: lane(
                mine, sigma=sigma, kernel=kernel, code=code, estimate=way, steps=steps
            )
        )

    def stream(
        self,
        frames: Iterable[Any],
        *,
        sigma: float | None = None,
        estimate: Estimate = CLIP_ESTIMATE,
        live: bool = False,
    ) -> Stream:
        """Return an iterator over the results for the frames of one clip, in order.

        Each result is computed when the iterator requests it.

        Args:
            frames: Frames `[H,W,3]` (or `[3,H,W]`, as in a call), all of one clip.
            sigma: Standard deviation of the blur of all frames in HR pixels; None to estimate it.
            estimate: How the blur of each frame is estimated.
            live: Whether a thread takes frames as they arrive, as from a camera. Frames that
                arrive while another is being upscaled replace each other; the newest is kept.

        Returns:
            The `Stream`. Iterating raises the errors of a call and those of `frames`.

        Raises:
            InputError: `estimate` is unknown, or `frames` is not iterable.

        Example:
            >>> with upscaler.stream(camera_frames, live=True) as results:  # doctest: +SKIP
            ...     for result in results:
            ...         show(result.image)
        """
        tracker, way = Tracker(), check_estimate(estimate)
        if not isinstance(frames, Iterable):
            raise InputError(f"frames must be iterable, got {shown(frames)}")

        def upscale(frame: Any) -> Result:
            return self._upscale(frame, (sigma, None, None), way, False, tracker)

        return Stream(frames, upscale, live)

    def _upscale(
        self,
        frame: Any,
        blur: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
        estimate: Estimate | None,
        steps: bool,
        tracker: Tracker,
    ) -> Result:
        started = time.perf_counter()
        frame = accept(frame, self.backend)
        batch = check_frames(frame, self._io)
        given = self._given_code(*blur, len(batch))
        way = self.estimate if estimate is None else check_estimate(estimate)
        if way == "track" and given is None and len(batch) > 1:
            raise InputError(
                f"a clip is tracked frame by frame, got a batch of {len(batch)}; pass them one by "
                'one, or estimate each frame with "crops"'
            )
        with self._lock:
            if self._closed:
                raise InputError("this Upscaler is closed; create a new one with ikc_deploy.load()")
            self._executor.restart_clock()
            job = _Job(batch, given, way, steps, tracker, levels_given=blur[2] is not None)
            try:
                images, codes = self._done(job)
            except OutOfMemoryError as error:
                self._tiled_upscaler.halve_tile_size(frame_shape(batch, self._io), job.loops, error)
                images, codes = self._done(job)
            timings = dict(self._executor.timings)
        timings["total"] = 1e3 * (time.perf_counter() - started)
        if frame.ndim == 3:
            images, codes = [image[0] for image in images], codes[:, 0]
        return self._result(images, codes, timings, steps)

    def _done(self, job: _Job) -> tuple[list[Any], NDArray[np.float32]]:
        """Return images `[N,...]`, of every step if requested, and codes `[t+1,N,code_size]`."""
        tile_size = self._tiled_upscaler.tile_size(frame_shape(job.batch, self._io), job.loops)
        if job.loops and tile_size is None:
            return self._executor.loop(job.batch, job.steps)
        if job.given is not None:
            codes = self._with_levels(job, job.given, tile_size)[None]
        else:
            frames = self._executor.on_host(job.batch, whole=tile_size is None)
            codes = np.stack([self._codes(frame, job, tile_size) for frame in frames], axis=1)
        shown = codes if job.steps else codes[-1:]
        return [self._tiled_upscaler.upscale(job.batch, each, tile_size) for each in shown], codes

    def _with_levels(
        self, job: _Job, given: NDArray[np.float32], tile_size: int | None
    ) -> NDArray[np.float32]:
        """Return the given codes with the degradation levels that the predictor estimates.

        A sigma or a kernel specifies neither noise nor compression; a whole code does.
        """
        basis = self.bundle.basis
        if not basis.levels or job.levels_given:
            return given
        if tile_size is None:
            return basis.take_levels(given, self._executor.predict(job.batch))
        frames = self._executor.on_host(job.batch, whole=False)
        read = [self._estimator.predict(frame, tile_size) for frame in frames]
        return basis.take_levels(given, np.stack(read))

    def _codes(self, frame: NDArray[Any], job: _Job, tile_size: int | None) -> NDArray[np.float32]:
        """Return the codes `[t+1,code_size]` of a frame on which the loop does not run whole."""
        if job.estimate == "track":
            return self._estimator.track(frame, tile_size, job.tracker)
        if job.estimate == "full" and tile_size is not None:
            return self._estimator.on_tiles(frame, tile_size)
        return self._estimator.loop(frame, tile_size)

    def close(self) -> None:
        """Free buffers and graphs; a second call does nothing.

        Submitted frames in progress are finished; waiting ones are cancelled.
        """
        with self._pool_lock:
            done, self._closed = self._closed, True
            if self._pool is not None:
                self._pool.close()
                self._pool = None
            for lane in self._lanes:
                lane.close()
            self._lanes.clear()
        with self._lock:
            if not done:
                # First the backend: it waits for work that still uses the sessions' buffers.
                self.backend.close()
                self._executor.forget()

    def __exit__(self, *_: object) -> None:
        """Close the upscaler at the end of the `with` block."""
        self.close()

    def _open_pool(self) -> WorkerPool[Upscaler, Result]:
        with self._pool_lock:
            if self._closed:
                raise InputError("this Upscaler is closed; create a new one with ikc_deploy.load()")
            if self._pool is None:
                while len(self._lanes) < self.streams:
                    self._lanes.append(
                        Upscaler(
                            self.bundle,
                            self.backend.clone(),
                            self.iters,
                            estimate=self.estimate,
                            tiles=self._tiles,
                        )
                    )
                self._pool = WorkerPool(self._lanes, FRAMES_PER_STREAM * self.streams)
            return self._pool

    def _given_code(
        self,
        sigma: ArrayLike | None,
        kernel: ArrayLike | None,
        code: ArrayLike | None,
        count: int,
    ) -> NDArray[np.float32] | None:
        given = {"sigma": sigma, "kernel": kernel, "code": code}
        named = [name for name, value in given.items() if value is not None]
        if not named:
            return None
        if len(named) > 1:
            raise InputError(f"got {' and '.join(named)}: specify the blur by only one of them")
        basis = self.bundle.basis
        if sigma is not None:
            codes = basis.code_of_sigma(sigma)
        elif kernel is not None:
            codes = self._code_of_kernel(kernel)
        else:
            codes = real_array(code, _CODE_WORDS).astype(np.float32)
        wanted = (count, basis.code_size)
        if codes.shape not in (wanted[1:], wanted):
            raise InputError(
                f"{named[0]} must specify one blur, or one for each of {count} frames; "
                f"got codes of shape {list(codes.shape)}"
            )
        longest = float(np.linalg.norm(codes, axis=-1).max())
        if longest > _LONGEST_CODE:
            raise InputError(
                f"invalid kernel code of length {longest:.3g}: codes of blur kernels have lengths "
                "of at most 1; use one from Result.codes or KernelBasis.encode"
            )
        return np.ascontiguousarray(np.broadcast_to(codes, wanted))

    def _code_of_kernel(self, kernel: ArrayLike) -> NDArray[np.float32]:
        """Return codes `[code_size]` or `[N,code_size]` of kernels that the basis represents.

        Raises:
            KernelError: The basis loses too much of a kernel.
        """
        basis, name = self.bundle.basis, self.bundle.manifest.name
        codes = basis.encode(kernel)
        kernels = check_kernels(kernel, MAX_NEGATIVE)
        for each in kernels.reshape(-1, *kernels.shape[-2:]):
            lost = projection_error(each, basis, self.scale)
            if lost > MAX_LOST:
                raise KernelError(
                    f"{name} cannot represent this kernel: the nearest kernel of its basis is "
                    f"{lost:.0%} off, and {MAX_LOST:.0%} is the limit; for kernels of any shape "
                    "use USRNet (ikc-export --usrnet, then ikc-upscale --kernel or NonBlind)"
                )
        return codes

    def _result(
        self,
        images: list[Any],
        codes: NDArray[np.float32],
        timings: dict[str, float],
        steps: bool,
    ) -> Result:
        basis = self.bundle.basis
        sigma = basis.sigma_of_code(codes[-1])
        return Result(
            image=images[-1],
            codes=codes,
            sigma=_number(sigma),
            kernel=basis.decode(codes[-1]),
            noise=_number(basis.noise_of_code(codes[-1])),
            jpeg_quality=_number(basis.jpeg_quality_of_code(codes[-1])),
            timings=timings,
            steps=tuple(images) if steps else (),
        )


def _number(values: NDArray[np.float64] | None) -> Any:
    """Return a float for an array without axes, and other values unchanged."""
    return float(values) if values is not None and values.ndim == 0 else values


@dataclass(frozen=True, eq=False)
class _Job:
    """One call: frames `[N,...]` and how to upscale them."""

    batch: Frames
    given: NDArray[np.float32] | None
    """Given codes `[N,code_size]`; None to estimate them."""
    estimate: Estimate
    steps: bool
    tracker: Tracker
    levels_given: bool = False
    """Whether `given` also specifies the noise and compression of the frames."""

    @property
    def loops(self) -> bool:
        """Whether the whole loop runs on whole frames."""
        return self.given is None and self.estimate == "full"


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
    backend = open_backend(
        chosen.backend,
        opened,
        chosen.threads,
        cuda_graph=chosen.cuda_graph,
        device=chosen.device,
        precision=chosen.precision,
    )
    message = half_precision_warning(opened, backend)
    if message is not None:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return Upscaler(
        opened,
        backend,
        chosen.iters,
        chosen.streams,
        estimate=chosen.estimate,
        tiles=chosen.tiles,
    )
