"""The three networks on host arrays: a session for each shape, the last few of them kept.

Frames go in, images and kernel codes come out, and `timings` says what it took. Which passes a
frame needs is decided elsewhere: in `estimation` for its code, in `tiling` for its image.
Not thread-safe: the `Upscaler` that owns it has the lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle import Manifest
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.frames import FrameShape, frame_shape
from ikc_deploy.runtime.loop import STAGES, Session, StageCall, run

_SESSIONS_KEPT: Final = 4


class Passes:
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

    def loop(
        self, frames: NDArray[Any], keep: Callable[[NDArray[Any]], None] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Algorithm 1 on `frames` `[N,...]`: the last images and all codes `[t+1,N,code_size]`.

        `keep` gets the images of every step.
        """
        session = self._uploaded(frames)
        image: NDArray[Any] | None = None

        def download(_: int) -> None:
            nonlocal image
            image = self._backend.download(session.frame)
            if keep is not None:
                keep(image)

        self._run(session.blind(), None if keep is None else download)
        if image is None:
            image = self._backend.download(session.frame)
        return image, self._codes(session, self.iters)

    def predicted(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """The predictor's codes `[N,code_size]`."""
        session = self._uploaded(frames)
        self._run(session.predict())
        return self._backend.download(session.codes[0])

    def corrected(
        self, frames: NDArray[Any], code: NDArray[np.float32], corrections: int
    ) -> NDArray[np.float32]:
        """`code` `[code_size]` and what F and C make of it on each frame, so many times.

        Returns `[corrections+1,N,code_size]`; `corrections` is at most `iters`.
        """
        session = self._uploaded(frames, code)
        self._run(session.correct(corrections))
        return self._codes(session, corrections)

    def restored(self, frames: NDArray[Any], codes: NDArray[np.float32]) -> NDArray[Any]:
        """F alone: images of `frames` under one code, or one for each."""
        session = self._uploaded(frames, codes)
        self._run(session.known())
        return self._backend.download(session.frame)

    def _uploaded(self, frames: NDArray[Any], codes: NDArray[np.float32] | None = None) -> Session:
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
        self, calls: Iterator[StageCall], after_image: Callable[[int], None] | None = None
    ) -> None:
        for stage, milliseconds in run(self._backend, calls, after_image).items():
            self.timings[stage] += milliseconds

    def _codes(self, session: Session, last: int) -> NDArray[np.float32]:
        return np.stack([self._backend.download(buffer) for buffer in session.codes[: last + 1]])
