"""The networks of a loop on frames, with a session for each of the last few frame shapes.

The executor takes frames, returns images and kernel codes, and records `timings`. Other modules
decide which passes a frame needs: `estimation` for its code, `tiling` for its image.
Not thread-safe: the `Upscaler` that owns the executor has a lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.frames import Frames, FrameShape, frame_shape
from ikc_deploy.runtime.session import LaunchSequence, Session, run

_SESSIONS_KEPT: Final = 4


class NetworkExecutor:
    """An executor of one bundle's networks on one backend, with up to `iters` corrections.

    Args:
        backend: Runs the graphs; the caller owns it.
        bundle: The bundle.
        iters: Number of corrections.
    """

    def __init__(self, backend: Backend, bundle: Bundle, iters: int) -> None:
        self.iters = iters
        self.predicts = bundle.loop.start is not None
        """Whether the first code depends on the frame; otherwise it is constant."""
        self.timings = dict.fromkeys(bundle.loop.graphs, 0.0)
        """Milliseconds since `restart_clock`, by network."""
        self._backend = backend
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._sessions: OrderedDict[FrameShape, Session] = OrderedDict()

    def restart_clock(self) -> None:
        """Set all `timings` to 0."""
        self.timings = dict.fromkeys(self.timings, 0.0)

    def forget(self) -> None:
        """Free the buffers of all shapes."""
        self._sessions.clear()

    def loop(self, frames: Frames, steps: bool = False) -> tuple[list[Any], NDArray[np.float32]]:
        """Run the whole loop on whole frames.

        Args:
            frames: Batch `[N,...]` in the bundle's layout.
            steps: Whether to return the images of every step instead of the last ones.

        Returns:
            A list of images `[N,...]`, where the frames are, and codes `[t+1,N,code_size]`.

        Raises:
            BackendError: The device failed, or a code is not finite.
            OutOfMemoryError: The device has too little memory.
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
        """Return the codes `[N,code_size]` at which the loop starts."""
        if not self.predicts:
            start = self._bundle.basis.delta_code()
            return np.tile(start, (len(frames), 1))
        session = self._uploaded(frames)
        self._run(session.predict())
        return _finite(self._backend.download(session.codes[0]))

    def correct(
        self, frames: Frames, code: NDArray[np.float32], corrections: int
    ) -> NDArray[np.float32]:
        """Correct one initial code on each frame.

        Args:
            frames: Batch `[N,...]` in the bundle's layout.
            code: Initial code `[code_size]`.
            corrections: Number of corrections, at most `iters`.

        Returns:
            `[corrections+1,N,code_size]`, the initial code first.
        """
        session = self._uploaded(frames, code)
        self._run(session.correct(corrections))
        return self._codes(session, corrections)

    def upscale(self, frames: Frames, codes: NDArray[np.float32]) -> Any:
        """Run the SR network alone, with one code for all frames or one for each.

        Args:
            frames: Batch `[N,...]` in the bundle's layout.
            codes: `[code_size]` or `[N,code_size]`.

        Returns:
            Images `[N,...]`, where the frames are.
        """
        session = self._uploaded(frames, codes)
        self._run(session.known())
        return self._image(session, frames)

    def on_host(self, frames: Frames, whole: bool) -> NDArray[Any]:
        """Return frames as a host array.

        Args:
            frames: Batch in the bundle's layout.
            whole: Whether the frames are upscaled whole. Then the buffer of their session is used,
                and nothing is allocated for each frame.

        Returns:
            `frames` itself if it is on the host, else a copy.
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
        if codes is not None:
            wanted = (len(frames), self._manifest.code_size)
            codes = np.ascontiguousarray(np.broadcast_to(codes, wanted), np.float32)
        session.upload(frames, codes)
        return session

    def _session(self, shape: FrameShape) -> Session:
        session = self._sessions.pop(shape, None)
        if session is None:
            while len(self._sessions) >= _SESSIONS_KEPT:
                self._sessions.popitem(last=False)
            session = Session(self._backend, self._bundle, shape, self.iters)
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
    """Return `codes` if all are finite, and raise `BackendError` otherwise."""
    if not np.isfinite(codes).all():
        raise BackendError(
            "the networks returned a kernel code that is not finite: their weights are damaged, or "
            "this frame overflows their precision; export them again, or with --fp32"
        )
    return codes
