"""Execution of the networks on frames that are uploaded once, with one session per frame shape.

`NetworkExecutor.upload` copies the frames of a call to the device. Every network of the call reads
that copy: areas are cut out of it on the device, and kernel codes stay on the device between
networks. This module does not decide what to run; `estimation` does for codes, `tiled_upscaler` for
images. Not thread-safe: the `UpscalingWorker` that owns the executor holds a lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.backends.base import Backend, Buffer, PlaneIndex
from ikc_deploy.runtime.frame_plane import FramePlane, HostPlane
from ikc_deploy.runtime.frames import Area, FrameBatch, FrameShape
from ikc_deploy.runtime.session import LaunchSequence, Session

_SESSIONS_KEPT: Final = 4


class NetworkExecutor:
    """Runs the networks of one bundle on one backend, with up to `iters` corrections.

    Args:
        backend: The backend; the caller owns it.
        bundle: The bundle.
        iters: Number of corrections.
        early_stop: Change of the code (`UpscalerOptions.early_stop`) below which the remaining
            corrections are skipped; None to run all corrections.
    """

    def __init__(
        self, backend: Backend, bundle: Bundle, iters: int, early_stop: float | None = None
    ) -> None:
        self.iters = iters
        self.early_stop = early_stop
        self.predicts = bundle.loop.start is not None
        """Whether the initial code depends on the frame; otherwise it is constant."""
        self.timings = dict.fromkeys(bundle.loop.graphs, 0.0)
        """Milliseconds by network, summed since `restart_clock`."""
        self.backend = backend
        self._bundle = bundle
        self._sessions: OrderedDict[FrameShape, Session] = OrderedDict()

    def restart_clock(self) -> None:
        """Reset all `timings` to 0."""
        self.timings = dict.fromkeys(self.timings, 0.0)

    def forget(self) -> None:
        """Free the buffers of all shapes."""
        self._sessions.clear()

    def upload(self, batch: FrameBatch, whole: bool) -> UploadedBatch:
        """Upload the frames of a call to the device.

        Args:
            batch: The frames.
            whole: Whether a network runs on whole frames. Otherwise the upload is skipped if the
                backend can read areas of the frames in place.

        Returns:
            The frames on the device, valid until the next upload.

        Raises:
            BackendError: The device failed.
            OutOfMemoryError: The device has too little memory.
        """
        source = None if whole else self.backend.as_buffer(batch.array)
        if source is None:
            source = self.session(batch.shape).lr
            self.backend.upload(batch.array, source)
        return UploadedBatch(self, batch, source)

    def session(self, shape: FrameShape) -> Session:
        """Return the session for a frame shape; the most recent ones are cached."""
        session = self._sessions.pop(shape, None)
        if session is None:
            while len(self._sessions) >= _SESSIONS_KEPT:
                self._sessions.popitem(last=False)
            session = Session(self.backend, self._bundle, shape, self.iters)
        self._sessions[shape] = session
        return session

    def run(
        self, sequence: LaunchSequence, after_image: Callable[[int], None] | None = None
    ) -> None:
        """Run a launch sequence, and add its durations to `timings`; see `LaunchSequence.run`."""
        for stage, milliseconds in sequence.run(after_image).items():
            self.timings[stage] += milliseconds

    def upscale_tile(self, tile: NDArray[Any], code: NDArray[np.float32]) -> NDArray[Any]:
        """Upscale one frame `[H,W,3]` or `[3,H,W]` in host memory with a kernel code."""
        uploaded = self.upload(
            FrameBatch(tile[None], self._bundle.manifest.io, single=True), whole=True
        )
        image: NDArray[Any] = uploaded.upscale(code[None])[0]
        return image


class UploadedBatch:
    """The frames of a call on the device; runs networks on whole frames or on areas of them.

    All methods raise `BackendError` if the device failed or a code is not finite, and
    `OutOfMemoryError` if the device has too little memory.

    Args:
        executor: The executor.
        batch: The frames.
        source: Buffer of the frames on the device, from which areas are copied.
    """

    def __init__(self, executor: NetworkExecutor, batch: FrameBatch, source: Buffer) -> None:
        self.batch = batch
        self._executor = executor
        self._backend = executor.backend
        self._source = source
        self._predicted = False

    @property
    def predicts(self) -> bool:
        """Whether the initial code depends on the frames; otherwise it is constant."""
        return self._executor.predicts

    def plane(self, number: int) -> FramePlane:
        """Return the green plane of a frame; it is reduced in the memory that holds the frame."""
        if isinstance(self.batch.array, np.ndarray):
            return HostPlane(self.batch.layout.green(self.batch.array[number]))
        return _DevicePlane(self._backend, self._source, self.batch.green_index(number))

    def loop(self, steps: bool = False) -> tuple[list[Any], NDArray[np.float32]]:
        """Run the whole loop on the whole frames.

        Args:
            steps: Whether to return the images of all steps instead of only the last ones.

        Returns:
            A list of images `[N,...]`, in the same memory as the frames, and codes
            `[t+1,N,code_size]`; t is less than `iters` if the loop stopped early.
        """
        session = self._whole()
        images: list[Any] = []

        def keep(_: int) -> None:
            images.append(self._image(session))

        if self._executor.early_stop is not None:
            self._start(session)
            last = self._correct(session, self._executor.iters, keep if steps else None)
            self._executor.run(session.image(last))
            keep(last)
            return images, self._codes(session, last)
        session.start()
        self._executor.run(session.blind(), keep if steps else None)
        if not steps:
            keep(self._executor.iters)
        return images, self._codes(session, self._executor.iters)

    def ensure_predicted(self) -> None:
        """Compute the initial codes of the whole frames, unless done; they stay on the device."""
        if not self._predicted:
            session = self._whole()
            self._start(session)
            self._predicted = True

    def predicted_codes(self) -> NDArray[np.float32]:
        """Return the initial codes `[N,code_size]` of the whole frames."""
        self.ensure_predicted()
        return self._codes(self._whole(), 0)[0]

    def predict_areas(self, number: int, areas: Sequence[Area]) -> NDArray[np.float32]:
        """Return the initial codes `[K,code_size]` of K equally large areas of a frame."""
        session = self._cut(number, areas)
        self._start(session)
        return self._codes(session, 0)[0]

    def correct(
        self,
        number: int,
        areas: Sequence[Area],
        code: NDArray[np.float32] | None,
        corrections: int,
    ) -> NDArray[np.float32]:
        """Correct an initial code on areas of a frame, in one batch.

        Args:
            number: Index of the frame.
            areas: K equally large areas.
            code: Initial code `[code_size]`; None for the initial code of the whole frame.
            corrections: Number of corrections, at most `iters`.

        Returns:
            Codes `[corrections+1,K,code_size]`, starting with the initial one; fewer if the loop
            stopped early.
        """
        session = self._cut(number, areas)
        if code is not None:
            self._upload_codes(np.broadcast_to(code, (len(areas), len(code))), session)
        elif not self.predicts:
            session.start()
        else:
            self.ensure_predicted()
            whole = self._whole()
            if session is not whole:
                width = slice(0, whole.codes[0].shape[1])
                for place in range(len(areas)):
                    part, target = slice(number, number + 1), slice(place, place + 1)
                    self._backend.copy(
                        whole.codes[0], (part, width), session.codes[0], (target, width)
                    )
        return self._codes(session, self._correct(session, corrections))

    def upscale(self, codes: NDArray[np.float32]) -> Any:
        """Run the SR network on the whole frames.

        Args:
            codes: Kernel codes `[N,code_size]`.

        Returns:
            Images `[N,...]`, in the same memory as the frames.
        """
        session = self._whole()
        self._upload_codes(codes, session)
        self._executor.run(session.image(0))
        return self._image(session)

    def upscale_area(self, number: int, area: Area, code: NDArray[np.float32]) -> NDArray[Any]:
        """Run the SR network on an area of a frame; return the image in host memory.

        Args:
            number: Index of the frame.
            area: The area.
            code: Kernel code `[code_size]`.
        """
        session = self._cut(number, [area])
        self._upload_codes(code[None], session)
        self._executor.run(session.image(0))
        return self._backend.download(session.frame)[0]

    def _start(self, session: Session) -> None:
        """Compute the initial codes of a session, or copy the constant ones."""
        if self.predicts:
            self._executor.run(session.predict())
        else:
            session.start()

    def _correct(
        self, session: Session, corrections: int, after_image: Callable[[int], None] | None = None
    ) -> int:
        """Run corrections from `codes[0]`; return their number, less if the loop stopped early.

        A batch stops once the codes of all of its frames have converged.
        """
        limit = self._executor.early_stop
        if limit is None:
            self._executor.run(session.correct(corrections))
            return corrections
        code = self._backend.download(session.codes[0])
        for step in range(1, corrections + 1):
            self._executor.run(session.correction(step), after_image)
            before, code = code, self._backend.download(session.codes[step])
            if np.linalg.norm(code - before, axis=1).max() < limit:
                return step
        return corrections

    def _whole(self) -> Session:
        session = self._executor.session(self.batch.shape)
        if session.lr is not self._source:
            self._backend.upload(self.batch.array, session.lr)
            self._source = session.lr
        return session

    def _cut(self, number: int, areas: Sequence[Area]) -> Session:
        """Return a session with equally large areas copied to its input buffer."""
        rows, columns = areas[0]
        shape = FrameShape(len(areas), rows.stop - rows.start, columns.stop - columns.start)
        session = self._executor.session(shape)
        if session.lr is self._source:
            return session
        whole = slice(0, shape.height), slice(0, shape.width)
        for place, area in enumerate(areas):
            self._backend.copy(
                self._source,
                self.batch.index(number, area),
                session.lr,
                self.batch.index(place, whole),
            )
        return session

    def _image(self, session: Session) -> Any:
        backend = self._backend
        return (backend.download if self.batch.on_host else backend.copy_to_device_array)(
            session.frame
        )

    def _upload_codes(self, codes: NDArray[np.float32], session: Session) -> None:
        self._backend.upload(np.ascontiguousarray(codes, np.float32), session.codes[0])

    def _codes(self, session: Session, last: int) -> NDArray[np.float32]:
        buffers = session.codes[: last + 1]
        return _finite(np.stack([self._backend.download(buffer) for buffer in buffers]))


class _DevicePlane:
    """A `FramePlane` in device memory."""

    def __init__(self, backend: Backend, source: Buffer, index: PlaneIndex) -> None:
        self._backend, self._source, self._index = backend, source, index

    @property
    def shape(self) -> tuple[int, int]:
        return self._index.height, self._index.width

    def texture(self, block: int) -> NDArray[np.float32]:
        return self._backend.texture(self._source, self._index, block)

    def means(self, height: int, width: int) -> NDArray[np.float32]:
        return self._backend.means(self._source, self._index, height, width)


def _finite(codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `codes`; raise `BackendError` if one is not finite."""
    if not np.isfinite(codes).all():
        raise BackendError(
            "the networks returned a kernel code that is not finite: their weights are damaged, or "
            "this frame overflows their precision; export them again, or with --fp32"
        )
    return codes
