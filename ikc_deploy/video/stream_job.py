"""`upscale_stream`: passes frames from a source through an upscaler to a sink."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ikc_deploy.errors import VideoError
from ikc_deploy.video.interfaces import FrameUpscaler, Sink, Source


@dataclass(frozen=True)
class StreamOutcome:
    """The outcome of a run."""

    frames: int
    """Number of frames in the output, including those of a resumed run."""
    dropped: int
    """Number of frames of a live source that were replaced by newer ones."""
    interrupted: bool
    """Whether the run was stopped before the source ended."""
    warnings: tuple[str, ...]
    """Problems of the source, and parts that the output lacks, a sentence for each."""


def upscale_stream(
    source: Source,
    upscaler: FrameUpscaler,
    sink: Sink,
    stop: threading.Event,
    progress: Callable[[int], None] = lambda _: None,
    live: bool = False,
) -> StreamOutcome:
    """Upscale the frames of a source, and write them to a sink.

    If an error is raised, the output is absent or unchanged.

    Args:
        source: The source; the caller closes it.
        upscaler: The upscaler of its frames.
        sink: The sink; frames that it already has are skipped.
        stop: Event that ends the run; the output is finished with the frames so far.
        progress: Called after each frame, with the number of frames in the
            output.
        live: Whether to drop frames that arrive faster than they are upscaled, keeping the newest.

    Raises:
        VideoError: Memory is exhausted.
        IkcError: As raised by `source`, `upscaler` or `sink`.
    """
    count = sink.done
    try:
        with upscaler.run(source, sink.done, live, stop) as run:
            for frame in run:
                sink.write(frame)
                count += 1
                progress(count)
        dropped = run.dropped
        interrupted = stop.is_set()
        lost = sink.finish(complete=not interrupted)
    except BaseException as error:
        sink.abort()
        if isinstance(error, MemoryError):
            raise VideoError(
                "not enough memory for the upscaled frames; use a smaller clip"
            ) from error
        raise
    return StreamOutcome(count, dropped, interrupted, (*source.warnings, *lost))
