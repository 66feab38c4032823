"""`run_request`: opens the source and the sink of a request, and upscales between them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.options import CLIP_ESTIMATE
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.clip_upscaler import ClipUpscaler, output_facts
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.request import Request, open_sink, open_source
from ikc_deploy.video.stream_job import StreamOutcome, upscale_stream


@dataclass(frozen=True)
class FrameSettings:
    """Blur and postprocessing of all frames."""

    sigma: float | None = None
    """Sigma of the known blur in HR pixels; None to estimate the blur."""
    estimate: Estimate = CLIP_ESTIMATE
    """How the blur is estimated."""
    postprocessing: Postprocessing = NO_POSTPROCESSING
    """Strength, output size and preview."""


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
class StreamReport:
    """The result of a run."""

    request: Request
    """The request."""
    lr: StreamFacts
    """Properties of the input frames."""
    sr: StreamFacts
    """Properties of the output frames."""
    outcome: StreamOutcome
    """Number of frames, and what the output lacks."""


def run_request(
    request: Request,
    upscaler: Upscaler,
    settings: FrameSettings,
    stop: threading.Event,
    callbacks: Callbacks,
) -> StreamReport:
    """Upscale the source of a request to its sink.

    Args:
        request: The request.
        upscaler: The upscaler, which stays open.
        settings: Blur and postprocessing.
        stop: Event that ends the run; the output is completed with the frames so far.
        callbacks: Warnings, progress and pipes.

    Raises:
        IkcError: As raised by `open_source`, `open_sink` and `upscale_stream`.
    """
    with open_source(request, callbacks.stdin or _no_pipe, stop, callbacks.warn) as source:
        postprocessing = settings.postprocessing
        frames = ClipUpscaler(upscaler, settings.sigma, settings.estimate, postprocessing)
        name = request.camera.name if request.camera else str(request.source)
        facts = output_facts(source.facts, postprocessing, upscaler.scale, name)
        size = facts.height, facts.width
        run = {
            "weights": upscaler.bundle.manifest.weights_sha256,
            "iters": upscaler.iters,
            "early_stop": upscaler.early_stop,
            "self_ensemble": upscaler.self_ensemble,
            "sigma": settings.sigma,
            "estimate": settings.estimate,
            "size": size,
            "strength": postprocessing.strength,
            "preview": postprocessing.preview,
            "deinterlace": request.deinterlace,
        }
        sink = open_sink(request, source, facts, run, callbacks.stdout or _no_pipe, stop)
        for warning in sink.warnings:
            callbacks.warn(warning)
        callbacks.progress(sink.done, facts.frames)
        outcome = upscale_stream(
            source,
            frames,
            sink,
            stop,
            lambda done: callbacks.progress(done, facts.frames),
            request.live,
        )
    for warning in outcome.warnings:
        callbacks.warn(warning)
    return StreamReport(request, source.facts, facts, outcome)


def _no_pipe() -> BinaryIO:
    raise ValueError("the request has a pipe, but no pipe is given")
