"""`Upscaler`: frames in, upscaled frames and the estimated blur out."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.bundle import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.backends import open_backend
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.frames import FrameShape, accept, check_frames, frame_shape
from ikc_deploy.runtime.loop import Session, run
from ikc_deploy.runtime.pool import Pool, Ticket

DEFAULT_ITERS: Final = 7
"""Corrections after the predictor (IKC, section 4.1)."""

DEFAULT_STREAMS: Final = 2
"""One computes while the other copies."""

FRAMES_PER_STREAM: Final = 2
"""Submitted frames that are not finished, for each stream: one under way and one waiting."""

_SESSIONS_KEPT: Final = 4


@dataclass(frozen=True)
class Result:
    """One upscaled frame (or batch). All arrays are new and the caller's own.

    `image` and `steps` are where the frame was: a frame in GPU memory gives `DeviceArray`s, which
    other libraries take without a copy (see `ikc_deploy.runtime.cuda.arrays`), all else numpy.

    For a batch of N frames, `image` and each of `steps` have a leading N, `codes` is
    `[t+1, N, code_size]`, `sigma` is `[N]` and `kernel` `[N, k, k]`.
    """

    image: Any
    """The SR frame after the last step, in the layout and dtype of the input: `[sH,sW,3]` uint8,
    or `[3,sH,sW]` float32 in [0,1] from a bundle with io "float"."""
    codes: NDArray[np.float32]
    """Kernel codes h0..ht, `[t+1, code_size]`; one row if the blur was given."""
    sigma: Any
    """Sigma in HR pixels of the isotropic Gaussian nearest to the last code: float, or `[N]`."""
    kernel: NDArray[np.float32]
    """The last code decoded, `[k, k]`, sum about 1."""
    timings: dict[str, float]
    """Milliseconds: `predictor`, `sftmd`, `corrector` (each summed over the loop) and `total`,
    which includes the copies in and out."""
    steps: tuple[Any, ...] = ()
    """The image of every step 0..t if asked for with `steps=True`, else empty."""


class Upscaler:
    """Upscales frames with one bundle on one backend.

    Buffers are allocated once for each frame shape and kept for the last few shapes. Calls from
    several threads are served one after the other. `submit` does not wait: up to `streams` frames
    are worked on at once. Use it as a context manager, or `close` it.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        iters: int = DEFAULT_ITERS,
        streams: int = DEFAULT_STREAMS,
    ) -> None:
        if isinstance(streams, bool) or not isinstance(streams, int) or streams < 1:
            raise InputError(f"streams must be a whole number of at least 1, got {streams!r}")
        if isinstance(iters, bool) or not isinstance(iters, int) or iters < 0:
            raise InputError(f"iters must be a whole number of at least 0, got {iters!r}")
        self.bundle = bundle
        self.backend = backend
        self.iters = iters
        self.streams = streams
        self._lanes: list[Upscaler] = []
        self._pool: Pool[Upscaler, Result] | None = None
        self._pool_lock = threading.Lock()
        self._sessions: OrderedDict[FrameShape, Session] = OrderedDict()
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
        steps: bool = False,
    ) -> Result:
        """Upscale an RGB frame `[H,W,3]` uint8, or a batch `[N,H,W,3]` of independent frames.

        (A bundle with io "float" takes `[3,H,W]` or `[N,3,H,W]` float32 in [0,1].) Arrays of other
        libraries are read in place: any that speak DLPack or `__cuda_array_interface__`, in host
        memory or on the backend's GPU; work of theirs that is still to come is waited for there.
        The blur is estimated, unless one of these gives it; then F alone runs: `sigma` in HR
        pixels (one, or one for each frame), `kernel` `[k,k]` or `[N,k,k]` with sum 1, or `code`
        `[code_size]` or `[N,code_size]`. `steps=True` also returns every step's image.

        Raises `InputError` for anything that is not such a frame, `KernelError` for a blur
        outside the basis, `BackendError` if the device fails.
        """
        started = time.perf_counter()
        io = self.bundle.manifest.io
        frame = accept(frame, self.backend)
        batch = check_frames(frame, io)
        fetch = self.backend.download if isinstance(frame, np.ndarray) else self.backend.keep
        given = self._given_code(sigma, kernel, code, len(batch))
        images: list[Any] = []
        with self._lock:
            session = self._session(frame_shape(batch, io))
            calls = session.blind() if given is None else session.known()
            self.backend.upload(batch, session.lr)
            if given is not None:
                self.backend.upload(given, session.codes[0])

            def keep_image(_: int) -> None:
                images.append(fetch(session.frame))

            timings = run(self.backend, calls, keep_image if steps else None)
            used = session.codes if given is None else session.codes[:1]
            codes = np.stack([self.backend.download(buffer) for buffer in used])
            image = images[-1] if steps else fetch(session.frame)
        timings["total"] = 1e3 * (time.perf_counter() - started)
        if frame.ndim == 3:
            return self._result(image[0], codes[:, 0], timings, tuple(i[0] for i in images))
        return self._result(image, codes, timings, tuple(images))

    def submit(
        self,
        frame: Any,
        *,
        sigma: ArrayLike | None = None,
        kernel: ArrayLike | None = None,
        code: ArrayLike | None = None,
        steps: bool = False,
    ) -> Ticket[Result]:
        """As a call, without waiting for it: `ticket.result(timeout)` gives the `Result`.

        Frames are begun in the order of their submission, `streams` of them at once, so that one
        is copied while another is computed; each stream has buffers of its own. It waits itself
        while `FRAMES_PER_STREAM` frames a stream are unfinished. A numpy frame is copied and may
        be used again at once; one in GPU memory must stay as it is until its result is there. What
        is wrong with the frame or the blur is raised by the ticket.
        """
        pool = self._open_pool()
        taken = accept(frame, self.backend)
        mine = taken.copy() if isinstance(taken, np.ndarray) else taken
        return pool.submit(
            lambda lane: lane(mine, sigma=sigma, kernel=kernel, code=code, steps=steps)
        )

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
                self._sessions.clear()

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_pool(self) -> Pool[Upscaler, Result]:
        with self._pool_lock:
            if self._closed:
                raise InputError("this Upscaler is closed; load the bundle again")
            if self._pool is None:
                while len(self._lanes) < self.streams:
                    self._lanes.append(Upscaler(self.bundle, self.backend.sibling(), self.iters))
                self._pool = Pool(self._lanes, FRAMES_PER_STREAM * self.streams)
            return self._pool

    def _session(self, shape: FrameShape) -> Session:
        if self._closed:
            raise InputError("this Upscaler is closed; load the bundle again")
        session = self._sessions.pop(shape, None)
        if session is None:
            while len(self._sessions) >= _SESSIONS_KEPT:
                self._sessions.popitem(last=False)
            session = Session(self.backend, self.bundle.manifest, shape, self.iters)
        self._sessions[shape] = session
        return session

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
            codes = basis.encode(kernel)
        else:
            codes = np.asarray(code, dtype=np.float32)
        wanted = (count, basis.code_size)
        if codes.shape not in (wanted[1:], wanted) or not np.all(np.isfinite(codes)):
            raise InputError(
                f"{named[0]} must give one finite code, or one for each of {count} frames; "
                f"it gave an array of shape {list(codes.shape)}"
            )
        return np.ascontiguousarray(np.broadcast_to(codes, wanted))

    def _result(
        self,
        image: Any,
        codes: NDArray[np.float32],
        timings: dict[str, float],
        steps: tuple[Any, ...],
    ) -> Result:
        basis = self.bundle.basis
        sigma = basis.sigma_of_code(codes[-1])
        return Result(
            image=image,
            codes=codes,
            sigma=float(sigma) if sigma.ndim == 0 else sigma,
            kernel=basis.decode(codes[-1]),
            timings=timings,
            steps=steps,
        )


def load_bundle(
    bundle: str | PathLike[str] | Bundle,
    backend: str,
    iters: int,
    threads: int = 0,
    streams: int = DEFAULT_STREAMS,
    *,
    cuda_graph: bool = True,
) -> Upscaler:
    """An `Upscaler` for a bundle folder or an opened bundle; see `ikc_deploy.load`."""
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    chosen = open_backend(backend, opened, threads, cuda_graph=cuda_graph)
    return Upscaler(opened, chosen, iters, streams)
