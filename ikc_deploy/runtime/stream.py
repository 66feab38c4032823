"""`Stream`: an iterator over the results for the frames of one clip or camera, and its status."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.bounded_queue import BoundedQueue
from ikc_deploy.runtime.result import Result

_FRAMES_TIMED: Final = 256
"""Number of most recent frames that the percentiles cover."""


@dataclass(frozen=True)
class Status:
    """Counts and durations of a stream at one moment.

    Example:
        >>> status = results.status  # doctest: +SKIP
        >>> f"{status.frames_out} frames, {status.p50_ms['total']:.0f} ms"  # doctest: +SKIP
        '120 frames, 14 ms'
    """

    frames_in: int
    """Number of frames taken from the source."""
    frames_out: int
    """Number of results returned."""
    dropped: int
    """Number of frames of a live source that newer frames replaced."""
    p50_ms: dict[str, float]
    """Median durations of the last 256 frames in milliseconds: `wait` (for a frame), each network,
    and `total` (of the call, without the wait). Empty before the first result."""
    p90_ms: dict[str, float]
    """90th percentiles of the durations in `p50_ms`."""
    sigma: float | None
    """Sigma of the last result in HR pixels; None before the first."""


class Stream(AbstractContextManager["Stream"]):
    """An iterator over the results of `upscale` for `frames`; `Upscaler.stream` creates it.

    Each result is computed when it is requested. Several threads may iterate: each frame goes to
    one of them. Any thread may read `status` at any time. `close`, or the end of the `with` block,
    ends the stream, and closes `frames` if it is a generator.

    Args:
        frames: The frames of one clip in order.
        upscale: A function from a frame to its `Result`.
        live: Whether to keep only the newest of the frames that arrive while one is upscaled.

    Example:
        >>> with upscaler.stream(frames) as results:  # doctest: +SKIP
        ...     images = [result.image for result in results]
    """

    def __init__(
        self,
        frames: Iterable[NDArray[Any]],
        upscale: Callable[[NDArray[Any]], Result],
        live: bool,
    ) -> None:
        self._frames = _NewestFrames(frames) if live else _EveryFrame(frames)
        self._upscale = upscale
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._out = 0
        self._sigma: float | None = None
        self._times: deque[dict[str, float]] = deque(maxlen=_FRAMES_TIMED)

    def __iter__(self) -> Iterator[Result]:
        """Return the stream itself: it can be iterated once."""
        return self

    def __next__(self) -> Result:
        """Upscale the next frame.

        Returns:
            Its `Result`.

        Raises:
            StopIteration: There is no further frame, or the stream is closed.
            IkcError: An error of the upscaler, or of `frames`.
        """
        with self._turn:
            asked = time.perf_counter()
            frame = self._frames.take()
            wait = 1e3 * (time.perf_counter() - asked)
            result = self._upscale(frame)
        with self._counting:
            self._out += 1
            self._sigma = float(result.sigma)
            self._times.append({"wait": wait, **result.timings})
        return result

    @property
    def status(self) -> Status:
        """Current `Status` of the stream."""
        with self._counting:
            out, sigma, times = self._out, self._sigma, list(self._times)
        stages = times[0] if times else {}
        columns = {stage: [each[stage] for each in times] for stage in stages}
        p50, p90 = (
            {stage: float(np.percentile(column, share)) for stage, column in columns.items()}
            for share in (50, 90)
        )
        return Status(self._frames.taken, out, self._frames.dropped, p50, p90, sigma)

    def close(self) -> None:
        """Stop taking frames; a second call does nothing."""
        self._frames.close()

    def __exit__(self, *_: object) -> None:
        """Close the stream at the end of the `with` block."""
        self.close()


class _EveryFrame:
    """All frames in order, each read when it is requested."""

    dropped = 0

    def __init__(self, frames: Iterable[NDArray[Any]]) -> None:
        self.taken = 0
        self._frames = iter(frames)
        self._closed = False

    def take(self) -> NDArray[Any]:
        if self._closed:
            raise StopIteration
        frame = next(self._frames)
        self.taken += 1
        return frame

    def close(self) -> None:
        self._closed = True
        _close(self._frames)


class _NewestFrames:
    """The newest frame of a source that does not wait, read by a separate thread."""

    def __init__(self, frames: Iterable[NDArray[Any]]) -> None:
        self.taken = 0
        self._frames = iter(frames)
        self._queue = BoundedQueue[NDArray[Any]](capacity=1, newest_wins=True)
        self._arrived = self._queue.items()
        self._error: BaseException | None = None
        threading.Thread(target=self._read, name="ikc-stream", daemon=True).start()

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def take(self) -> NDArray[Any]:
        for frame in self._arrived:
            return frame
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        self._queue.cancel()

    def _read(self) -> None:
        try:
            for frame in self._frames:
                self.taken += 1
                if not self._queue.put(frame):
                    break
        except BaseException as error:  # raised again by `take`
            self._error = error
        finally:
            _close(self._frames)
            self._queue.finish()


def _close(frames: Iterator[Any]) -> None:
    close = getattr(frames, "close", None)
    if close is not None:
        close()
