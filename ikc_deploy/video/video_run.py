"""A video run: frames from a source through an upscaler to a sink."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ikc_deploy.errors import VideoError
from ikc_deploy.video.clip_upscaler import ClipUpscaler
from ikc_deploy.video.interfaces import FrameUpscaler, Sink, Source, StreamFacts
from ikc_deploy.video.request import Request, open_sink, open_source


@dataclass(frozen=True)
class Callbacks:
    """Callbacks for warnings and progress, and the pipes of a run."""

    warn: Callable[[str], None] = lambda _: None
    """Called with sentences about the source and about what the output will lack."""
    progress: Callable[[int, int | None], None] = lambda *_: None
    """Called with the number of frames in the output and the expected number, if it is known."""
    stdin: Callable[[], BinaryIO] | None = None
    """Returns the input pipe, for requests that have one."""
    stdout: Callable[[], BinaryIO] | None = None
    """Returns the output pipe, for requests that have one."""


@dataclass(frozen=True)
class VideoReport:
    """The result of a run."""

    lr: StreamFacts
    """Properties of the input frames."""
    sr: StreamFacts
    """Properties of the output frames."""
    frames: int
    """Number of frames in the output, including those of a resumed run."""
    dropped: int
    """Number of frames of a live source that were replaced by newer ones."""
    interrupted: bool
    """Whether the run was stopped before the source ended."""
    warnings: tuple[str, ...]
    """Problems of the source, and parts that the output lacks, a sentence for each."""


def run_request(
    request: Request, upscaler: ClipUpscaler, stop: threading.Event, callbacks: Callbacks
) -> VideoReport:
    """Upscale the source of a request to its sink.

    Args:
        request: The request.
        upscaler: The upscaler, which stays open.
        stop: Event that ends the run; the output is completed with the frames so far.
        callbacks: Warnings, progress and pipes.

    Raises:
        IkcError: As raised by `open_source`, `open_sink` and `upscale_stream`.
    """
    with open_source(request, callbacks.stdin or _no_pipe, stop, callbacks.warn) as source:
        facts = upscaler.output_facts(source)
        settings = {
            **upscaler.description(),
            "size": (facts.height, facts.width),
            "deinterlace": request.deinterlace,
        }
        sink = open_sink(request, source, facts, settings, callbacks.stdout or _no_pipe, stop)
        for warning in sink.warnings:
            callbacks.warn(warning)
        callbacks.progress(sink.done, facts.frames)
        report = upscale_stream(
            source,
            upscaler,
            sink,
            stop,
            lambda done: callbacks.progress(done, facts.frames),
            request.live,
        )
    for warning in report.warnings:
        callbacks.warn(warning)
    return report


def upscale_stream(
    source: Source,
    upscaler: FrameUpscaler,
    sink: Sink,
    stop: threading.Event,
    progress: Callable[[int], None] = lambda _: None,
    live: bool = False,
) -> VideoReport:
    """Upscale the frames of a source, and write them to a sink.

    If an error is raised, the output is absent or unchanged.

    Args:
        source: The source; the caller closes it.
        upscaler: The upscaler of its frames.
        sink: The sink; frames that it already has are skipped.
        stop: Event that ends the run; the output is finished with the frames so far.
        progress: Called after each frame, with the number of frames in the output.
        live: Whether to drop frames that arrive faster than they are upscaled, keeping the newest.

    Raises:
        VideoError: Memory is exhausted.
        IkcError: As raised by `source`, `upscaler` or `sink`.
    """
    count = sink.done
    try:
        sr = upscaler.output_facts(source)
        with upscaler.run(source, sink.done, live, stop) as run:
            for frame in run:
                sink.write(frame)
                count += 1
                progress(count)
        interrupted = stop.is_set()
        lost = sink.finish(complete=not interrupted)
    except BaseException as error:
        sink.abort()
        if isinstance(error, MemoryError):
            raise VideoError(
                "not enough memory for the upscaled frames; use a smaller clip"
            ) from error
        raise
    warnings = (*source.warnings, *lost)
    return VideoReport(source.facts, sr, count, run.dropped, interrupted, warnings)


def _no_pipe() -> BinaryIO:
    raise ValueError("the request has a pipe, but no pipe is given")
