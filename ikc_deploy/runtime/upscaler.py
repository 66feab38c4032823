"""`Upscaler`: frames in, upscaled frames and the estimated blur out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.arguments import real_array, shown, whole_number
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError, KernelError, OutOfMemoryError
from ikc_deploy.kernels.kernel_checks import MAX_LOST, MAX_NEGATIVE, check_kernels, projection_error
from ikc_deploy.runtime.backends import open_backend
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.estimation import Estimate, Estimator, check_estimate
from ikc_deploy.runtime.executor import NetworkExecutor
from ikc_deploy.runtime.frames import Frames, accept, check_frames, frame_shape
from ikc_deploy.runtime.memory import available_memory
from ikc_deploy.runtime.stream import Stream
from ikc_deploy.runtime.tiled_upscaler import TiledUpscaler
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.tracking import Tracker
from ikc_deploy.runtime.worker_pool import ResultFuture, WorkerPool

DEFAULT_STREAMS: Final = 2
"""One computes while the other copies."""

_CODE_WORDS: Final = "code must give one finite code for each frame, or one for all; its values"

_LONGEST_CODE: Final = 4.0
"""That of a kernel with sum 1 has at most length 1; a network may overshoot."""

FRAMES_PER_STREAM: Final = 2
"""Submitted frames that are not finished, for each stream: one under way and one waiting."""


@dataclass(frozen=True)
class Result:
    """One upscaled frame (or batch). All arrays are new and the caller's own.

    `image` and `steps` are where the frame was: a frame in GPU memory gives `DeviceArray`s, which
    other libraries take without a copy (see `ikc_deploy.runtime.cuda.arrays`), all else numpy. So
    do frames that had to be cut into tiles, wherever they were.

    For a batch of N frames, `image` and each of `steps` have a leading N, `codes` is
    `[t+1, N, code_size]`, `sigma` is `[N]` and `kernel` `[N, k, k]`.
    """

    image: Any
    """The SR frame after the last step, in the layout and dtype of the input: `[sH,sW,3]` uint8,
    or `[3,sH,sW]` float32 in [0,1] from a bundle with io "float"."""
    codes: NDArray[np.float32]
    """Kernel codes h0..ht, `[t+1, code_size]`; the last one made the image. One row if the blur was
    given; two, before and after the correction, if it was tracked."""
    sigma: Any
    """Sigma in HR pixels of the isotropic Gaussian nearest to the last code: float, or `[N]`."""
    kernel: NDArray[np.float32]
    """The last code decoded, `[k, k]`, sum about 1."""
    timings: dict[str, float]
    """Milliseconds: `predictor`, `sftmd`, `corrector` (each summed over the loop) and `total`,
    which includes the copies in and out."""
    noise: Any = None
    """Standard deviation of the noise that was read in the frame, in 8-bit levels: float or `[N]`;
    None if the weights do not tell."""
    jpeg_quality: Any = None
    """Quality of the JPEG file that the frame came from, as it was read, 100 for none: float or
    `[N]`; None if the weights do not tell."""
    steps: tuple[Any, ...] = ()
    """The image of every step 0..t if asked for with `steps=True`, else empty."""


class Upscaler(AbstractContextManager["Upscaler"]):
    """Upscales frames with one bundle on one backend.

    Buffers are allocated once for each frame shape and kept for the last few shapes. Calls from
    several threads are served one after the other. `submit` does not wait: up to `streams` frames
    are worked on at once. Use it as a context manager, or `close` it.

    `estimate` says how the blur is found where a call does not: "full", "crops" or "track" (see
    `ikc_deploy.runtime.estimation`). With "track" the calls are the frames of one clip, in order of
    time; for several clips at once, use `stream`.

    `tiles` says when frames are cut into tiles, all of which get one code. Where the device runs
    out of memory, the tiles (or whole frames, unless `tiles.tile` is None) are halved, once, with a
    `RuntimeWarning`; the frame is not lost.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        iters: int | None = None,
        streams: int = DEFAULT_STREAMS,
        *,
        estimate: Estimate = "full",
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
        self._executor = NetworkExecutor(backend, bundle.manifest, iters)
        self._estimator = Estimator(self._executor, bundle.basis, self._io)
        free = available_memory() if backend.device == "cpu" else None
        self._tiled_upscaler = TiledUpscaler(self._executor, bundle, self._tiles, free)
        self._tracker = Tracker()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def scale(self) -> int:
        """SR side over LR side."""
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
        """Upscale an RGB frame `[H,W,3]` uint8, or a batch `[N,H,W,3]` of independent frames.

        (A bundle with io "float" takes `[3,H,W]` or `[N,3,H,W]` float32 in [0,1].) Arrays of other
        libraries are read in place: any that speak DLPack or `__cuda_array_interface__`, in host
        memory or on the backend's GPU; work of theirs that is still to come is waited for there.
        The blur is estimated, unless one of these gives it; then F alone runs (after P, which reads
        noise and compression, if the weights know them and no `code` says): `sigma` in HR
        pixels (one, or one for each frame), `kernel` `[k,k]` or `[N,k,k]` with sum 1, or `code`
        `[code_size]` or `[N,code_size]`. `estimate` is for this call, None for the upscaler's own
        way; "track" takes the frames of one clip, one at a time. `steps=True` also returns every
        step's image.

        Raises `InputError` for anything that is not such a frame, `KernelError` for a blur
        outside the basis (or a kernel of which it loses more than 15 %), `BackendError` if the
        device fails, of which `OutOfMemoryError` if it is too small even for halved tiles.
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
                "frames that are submitted are worked on at once, so that their blur cannot be "
                'tracked; estimate it by "crops", or give them to stream()'
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
        estimate: Estimate = "track",
        live: bool = False,
    ) -> Stream:
        """The results for the frames of one clip, in order, as they are asked for.

        `sigma`, in HR pixels, gives the blur of all of them. With `live`, a thread takes frames as
        they come, and those that arrive while one is being upscaled replace each other: the newest
        wins. Raises `InputError` for an unknown `estimate`; iterating raises what a call raises,
        and what `frames` raises. See `Stream`.
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
                raise InputError("this Upscaler is closed; load the bundle again")
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
        """Images `[N,...]`, of every step if asked for, and codes `[t+1,N,code_size]`."""
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
        """The given codes, with the degradation levels that the predictor reads.

        A sigma or a kernel says nothing about noise and compression; a whole code does.
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
        """Codes `[t+1,code_size]` of a frame that does not go through the loop as a whole."""
        if job.estimate == "track":
            return self._estimator.track(frame, tile_size, job.tracker)
        if job.estimate == "full" and tile_size is not None:
            return self._estimator.on_tiles(frame, tile_size)
        return self._estimator.loop(frame, tile_size)

    def close(self) -> None:
        """Free buffers and graphs. Calling it again does nothing.

        Submitted frames that are under way are finished, those that wait are cancelled.
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
        self.close()

    def _open_pool(self) -> WorkerPool[Upscaler, Result]:
        with self._pool_lock:
            if self._closed:
                raise InputError("this Upscaler is closed; load the bundle again")
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
            raise InputError(f"give the blur once: got {' and '.join(named)}")
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
                f"{named[0]} must give one code, or one for each of {count} frames; "
                f"it gave an array of shape {list(codes.shape)}"
            )
        longest = float(np.linalg.norm(codes, axis=-1).max())
        if longest > _LONGEST_CODE:
            raise InputError(
                f"a code of length {longest:.3g} stands for no blur, whose codes have lengths of "
                "at most 1; give one that a result or KernelBasis.encode gave"
            )
        return np.ascontiguousarray(np.broadcast_to(codes, wanted))

    def _code_of_kernel(self, kernel: ArrayLike) -> NDArray[np.float32]:
        """Codes `[code_size]` or `[N,code_size]`. Raises `KernelError` for kernels it cannot do."""
        basis, name = self.bundle.basis, self.bundle.manifest.name
        codes = basis.encode(kernel)
        kernels = check_kernels(kernel, MAX_NEGATIVE)
        for each in kernels.reshape(-1, *kernels.shape[-2:]):
            lost = projection_error(each, basis, self.scale)
            if lost > MAX_LOST:
                raise KernelError(
                    f"{name} does not know this kernel: the nearest one of its basis is "
                    f"{lost:.0%} off, and {MAX_LOST:.0%} is the limit; for kernels of any shape "
                    "take USRNet (ikc-export --usrnet, then ikc-upscale --kernel or NonBlind)"
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
    """A float for an array of no dimension."""
    return float(values) if values is not None and values.ndim == 0 else values


@dataclass(frozen=True, eq=False)
class _Job:
    """One call: frames `[N,...]` and what is wanted of them."""

    batch: Frames
    given: NDArray[np.float32] | None
    """Codes `[N,code_size]`; None to estimate them."""
    estimate: Estimate
    steps: bool
    tracker: Tracker
    levels_given: bool = False
    """Whether `given` also says how noisy and how compressed the frames are."""

    @property
    def loops(self) -> bool:
        """Whether the whole loop should run on whole frames."""
        return self.given is None and self.estimate == "full"


def load_bundle(
    bundle: str | PathLike[str] | Bundle,
    backend: str,
    iters: int | None,
    threads: int = 0,
    streams: int = DEFAULT_STREAMS,
    *,
    cuda_graph: bool = True,
    estimate: Estimate = "full",
    tiles: TileSettings | None = None,
) -> Upscaler:
    """An `Upscaler` for a bundle folder or an opened bundle; see `ikc_deploy.load`."""
    if not isinstance(bundle, Bundle | str | PathLike):
        raise InputError(f"a bundle is a folder or an opened Bundle, got {shown(bundle)}")
    # Before a device is opened, which may take seconds.
    if iters is not None:
        whole_number(iters, "iters", 0)
    whole_number(streams, "streams", 1)
    check_estimate(estimate)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    chosen = open_backend(backend, opened, threads, cuda_graph=cuda_graph)
    return Upscaler(opened, chosen, iters, streams, estimate=estimate, tiles=tiles)
