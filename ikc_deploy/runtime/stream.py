"""`Stream`: an iterator over the results for the frames of one clip or camera, and its status."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np

from ikc_deploy.runtime.pipeline import PipelineRun
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
    """An iterator over the results for the frames of one clip; `Upscaler.stream` creates it.

    Several threads may iterate: each result goes to one of them. Any thread may read `status` at
    any time. `close`, or the end of the `with` block, ends the stream, and closes the frames if
    they are a generator.

    Args:
        run: The run of the frames through the upscaler's pipeline.

    Example:
        >>> with upscaler.stream(frames) as results:  # doctest: +SKIP
        ...     images = [result.image for result in results]
    """

    def __init__(self, run: PipelineRun[Result]) -> None:
        self._run = run
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._out = 0
        self._sigma: float | None = None
        self._times: deque[dict[str, float]] = deque(maxlen=_FRAMES_TIMED)

    def __iter__(self) -> Iterator[Result]:
        """Return the stream itself: it can be iterated once."""
        return self

    def __next__(self) -> Result:
        """Return the result of the next frame.

        Returns:
            Its `Result`.

        Raises:
            StopIteration: There is no further frame, or the stream is closed.
            IkcError: An error of the upscaler, or of `frames`.
        """
        with self._turn:
            result = next(self._run)
            wait = 1e3 * self._run.wait
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
        return Status(self._run.taken, out, self._run.dropped, p50, p90, sigma)

    def close(self) -> None:
        """Stop taking frames; a second call does nothing."""
        # A live source may be silent for long: its reader ends with its next frame.
        self._run.close(wait=False)

    def __exit__(self, *_: object) -> None:
        """Close the stream at the end of the `with` block."""
        self.close()
