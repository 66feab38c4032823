"""The three networks on frames: a session for each shape, the last few of them kept.

Frames go in, images and kernel codes come out, and `timings` says what it took. Which passes a
frame needs is decided elsewhere: in `estimation` for its code, in `tiling` for its image.
Not thread-safe: the `Upscaler` that owns it has the lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Manifest
from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.frames import Frames, FrameShape, frame_shape
from ikc_deploy.runtime.session import STAGES, LaunchSequence, Session, run

_SESSIONS_KEPT: Final = 4


class NetworkExecutor:
    """Runs the networks of one bundle on one backend, with up to `iters` corrections."""

    def __init__(self, backend: Backend, manifest: Manifest, iters: int) -> None:
        self.iters = iters
        self.timings = dict.fromkeys(STAGES, 0.0)
        """Milliseconds by network since `restart_clock`."""
        self._backend = backend
        self._manifest = manifest
        self._sessions: OrderedDict[FrameShape, Session] = OrderedDict()

    def restart_clock(self) -> None:
        """Set all `timings` to 0."""
        self.timings = dict.fromkeys(STAGES, 0.0)

    def forget(self) -> None:
        """Free the buffers of all shapes."""
        self._sessions.clear()

    def loop(self, frames: Frames, steps: bool = False) -> tuple[list[Any], NDArray[np.float32]]:
        """Algorithm 1 on `frames` `[N,...]`: the last images and all codes `[t+1,N,code_size]`.

        With `steps`, the images of every step. They are where the frames are.
        """
        session = self._uploaded(frames)
        images: list[Any] = []

        def keep(_: int) -> None:
            images.append(self._image(session, frames))

        self._run(session.blind(), keep if steps else None)
        if not steps:
            keep(self.iters)
        return images, self._codes(session, self.iters)

    def predict(self, frames: Frames) -> NDArray[np.float32]:
        """The predictor's codes `[N,code_size]`."""
        session = self._uploaded(frames)
        self._run(session.predict())
        return _finite(self._backend.download(session.codes[0]))

    def correct(
        self, frames: Frames, code: NDArray[np.float32], corrections: int
    ) -> NDArray[np.float32]:
        """Correct one initial code on each frame.

        Returns `[corrections+1,N,code_size]`; `corrections` is at most `iters`.
        """
        session = self._uploaded(frames, code)
        self._run(session.correct(corrections))
        return self._codes(session, corrections)

    def upscale(self, frames: Frames, codes: NDArray[np.float32]) -> Any:
        """F alone: images of `frames`, where they are, under one code or one for each."""
        session = self._uploaded(frames, codes)
        self._run(session.known())
        return self._image(session, frames)

    def on_host(self, frames: Frames, whole: bool) -> NDArray[Any]:
        """`frames` as a host array.

        If they are to be restored as a `whole`, their session's buffer serves, and nothing is
        allocated for each frame.
        """
        if isinstance(frames, np.ndarray):
            return frames
        if whole:
            return self._backend.download(self._uploaded(frames).lr)
        buffer = self._backend.allocate(frames.shape, frames.dtype)
        self._backend.upload(frames, buffer)
        return self._backend.download(buffer)

    def _image(self, session: Session, frames: Frames) -> Any:
        on_host = isinstance(frames, np.ndarray)
        return (self._backend.download if on_host else self._backend.copy_to_device_array)(
            session.frame
        )

    def _uploaded(self, frames: Frames, codes: NDArray[np.float32] | None = None) -> Session:
        session = self._session(frame_shape(frames, self._manifest.io))
        self._backend.upload(frames, session.lr)
        if codes is not None:
            wanted = (len(frames), self._manifest.code_size)
            each = np.ascontiguousarray(np.broadcast_to(codes, wanted), np.float32)
            self._backend.upload(each, session.codes[0])
        return session

    def _session(self, shape: FrameShape) -> Session:
        session = self._sessions.pop(shape, None)
        if session is None:
            while len(self._sessions) >= _SESSIONS_KEPT:
                self._sessions.popitem(last=False)
            session = Session(self._backend, self._manifest, shape, self.iters)
        self._sessions[shape] = session
        return session

    def _run(
        self, sequence: LaunchSequence, after_image: Callable[[int], None] | None = None
    ) -> None:
        for stage, milliseconds in run(self._backend, sequence, after_image).items():
            self.timings[stage] += milliseconds

    def _codes(self, session: Session, last: int) -> NDArray[np.float32]:
        buffers = session.codes[: last + 1]
        return _finite(np.stack([self._backend.download(buffer) for buffer in buffers]))


def _finite(codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """`codes`, if they are: an image made with any other code would be worth nothing."""
    if not np.isfinite(codes).all():
        raise BackendError(
            "the networks gave a kernel code that is not a number: their weights are damaged, or "
            "this frame overflows their precision; export them again, or with --fp32"
        )
    return codes
