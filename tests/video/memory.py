"""A source and a sink of frames in memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.video.interfaces import Frame, StreamFacts
from tests.video.clips import TICK, facts


class FramesInMemory:
    """Yields frames; raises `error`, if there is one, after the last of them."""

    def __init__(
        self, images: Sequence[NDArray[np.uint8]], error: BaseException | None = None
    ) -> None:
        self.name = "frames in memory"
        self.warnings = ()
        self.read = 0
        self._images = images
        self._error = error

    @property
    def facts(self) -> StreamFacts:
        height, width = self._images[0].shape[:2]
        return facts(width, height)

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        for number, image in enumerate(self._images[skip:], skip):
            self.read += 1
            yield Frame(image, TICK * number)
        if self._error is not None:
            raise self._error


class FramesKept:
    """Keeps frames, after those that it `has` from an earlier run; refuses frame `full`."""

    def __init__(self, has: Sequence[Frame] = (), full: int = -1) -> None:
        self.warnings = ()
        self.written = list(has)
        self.done = len(has)
        self.finished: list[bool] = []
        self.aborted = False
        self._full = full

    def write(self, frame: Frame) -> None:
        if len(self.written) == self._full:
            raise OSError("the disk is full")
        self.written.append(frame)

    def finish(self, complete: bool) -> tuple[str, ...]:
        self.finished.append(complete)
        return ()

    def abort(self) -> None:
        self.aborted = True
