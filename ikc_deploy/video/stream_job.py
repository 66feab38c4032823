"""One run: a source, an upscaler, a sink, and what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ikc_deploy.errors import VideoError
from ikc_deploy.video import pipeline
from ikc_deploy.video.interfaces import Frame, FrameUpscaler, Sink, Source


@dataclass(frozen=True)
class StreamOutcome:
    """What came of a run."""

    frames: int
    """Number of frames in the output, including those of a resumed run."""
    dropped: int
    """Frames of a live source that newer ones replaced."""
    interrupted: bool
    """True if it was stopped before the source ended."""
    warnings: tuple[str, ...]
    """What was wrong with the source, and what was lost when the output was finished."""


def upscale_stream(
    source: Source,
    upscaler: FrameUpscaler,
    sink: Sink,
    stop: threading.Event,
    progress: Callable[[int], None] = lambda _: None,
    live: bool = False,
) -> StreamOutcome:
    """Pass the frames of `source` through `upscaler` to `sink`, and finish the output.

    Frames that `sink` already has are skipped. `progress` gets the number of frames in the output
    after each, from another thread. Once `stop` is set, the output is finished with the frames so
    far. With `live`, frames that arrive faster than they are upscaled are dropped: the newest wins.

    Raises what the three raise, and `VideoError` if memory runs out; the output is then absent, or
    as it was before.
    """
    count = sink.done

    def work(frame: Frame) -> Frame:
        return Frame(upscaler(frame.rgb), frame.pts)

    def write(frame: Frame) -> None:
        nonlocal count
        sink.write(frame)
        count += 1
        progress(count)

    try:
        dropped = pipeline.run(source.frames(sink.done), work, write, stop, live)
        interrupted = stop.is_set()
        lost = sink.finish(complete=not interrupted)
    except BaseException as error:
        sink.abort()
        if isinstance(error, MemoryError):
            raise VideoError(
                "the upscaled frames are too large for this machine's memory; use a smaller clip"
            ) from error
        raise
    return StreamOutcome(count, dropped, interrupted, (*source.warnings, *lost))
