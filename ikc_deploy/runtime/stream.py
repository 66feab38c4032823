"""`Stream`: an iterator over the results for the frames of a clip or camera, and its `Status`."""

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
"""Number of recent frames over which percentiles are computed."""


@dataclass(frozen=True)
class Status:
    """A snapshot of the counts and timings of a stream.

    Example:
        >>> status = results.status  # doctest: +SKIP
        >>> f"{status.frames_out} frames, {status.p50_ms['total']:.0f} ms"  # doctest: +SKIP
        '120 frames, 14 ms'
    """

    frames_in: int
    """Number of frames read from the source."""
    frames_out: int
    """Number of results returned."""
    dropped: int
    """Number of frames of a live source that were replaced by newer ones."""
    p50_ms: dict[str, float]
    """Median durations over the last 256 frames in milliseconds: `wait` (for the source), each
    network, and `total` (without `wait`). Empty before the first result."""
    p90_ms: dict[str, float]
    """90th percentiles of the same durations."""
    sigma: float | None
    """Sigma of the last result in HR pixels; None before the first result."""


class Stream(AbstractContextManager["Stream"]):
    """An iterator over the results for the frames of one clip; created by `Upscaler.stream`.

    Several threads may iterate; each result goes to one of them. `status` may be read from any
    thread at any time. `close`, or leaving the `with` block, ends the stream and closes the source
    if it is a generator.

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
        """Return the stream itself; it can be iterated only once."""
        return self

    def __next__(self) -> Result:
        """Return the result of the next frame.

        Returns:
            Its `Result`.

        Raises:
            StopIteration: The source has no more frames, or the stream is closed.
            IkcError: The upscaler or the source failed.
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
        """Current status."""
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
        """Stop reading frames; a second call does nothing."""
        # Do not wait: the reader thread of a live source ends only with its next frame.
        self._run.close(wait=False)

    def __exit__(self, *_: object) -> None:
        """Close the stream at the end of the `with` block."""
        self.close()
