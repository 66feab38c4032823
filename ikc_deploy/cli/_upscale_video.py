"""ikc-upscale on video: options, progress and interruption."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from ikc_deploy.cli._interrupt import interruptible
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._ui import progress_bars, say, warn
from ikc_deploy.cli._upscaler_choice import UpscalerChoice
from ikc_deploy.cli._value_types import RATE, TIME, WIDTH_HEIGHT
from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.option_fields import Option
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.options import CLIP_ESTIMATE, UpscalerOptions
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.names import DEFAULT_RATE, PIPE, Deinterlace, is_video

if TYPE_CHECKING:
    from ikc_deploy.video.interfaces import StreamFacts
    from ikc_deploy.video.request import Request
    from ikc_deploy.video.stream_job import StreamOutcome


@dataclass(frozen=True)
class VideoOptions:
    """The video options of a command line; None and False for those not given."""

    encoder: EncoderSettings
    start: Annotated[
        Fraction | None, Option("Start time in the clip.", heading="Video", metavar="TIME")
    ] = None
    duration: Annotated[
        Fraction | None,
        Option("Length of the part to upscale.", heading="Video", metavar="TIME"),
    ] = None
    deinterlace: Annotated[
        Deinterlace,
        Option(
            "Deinterlace with bwdif, one frame for each frame; auto: frames that are marked as "
            "interlaced.",
            heading="Video",
        ),
    ] = "auto"
    resume: Annotated[bool, Option("Resume an interrupted run.", heading="Video")] = False
    camera: Annotated[
        str | None,
        Option(
            "Camera instead of INPUT: the number of a V4L2 device, or a URL (rtsp://...); without "
            "-o, shown in a window.",
            heading="Video",
            metavar="ADDRESS",
        ),
    ] = None
    raw: Annotated[
        str | None,
        Option(
            "Pixel format of raw video on pipes (-): rgb24, yuv420p, ...",
            heading="Video",
            metavar="FORMAT",
        ),
    ] = None
    raw_size: Annotated[
        tuple[int, int] | None,
        Option("Size of the raw input frames.", heading="Video", metavar="WxH"),
    ] = None
    rate: Annotated[
        Fraction | None,
        Option(
            "Frames per second of a folder of frames or raw video.",
            default=str(DEFAULT_RATE),
            heading="Video",
            metavar="RATE",
        ),
    ] = None


video_options: Final = option_group(
    VideoOptions,
    "video",
    types={"start": TIME, "duration": TIME, "raw_size": WIDTH_HEIGHT, "rate": RATE},
)
"""Decorator that adds the options of `VideoOptions` to a command, as its parameter `video`."""


def video_request(
    inputs: tuple[Path, ...], out: Path | None, video: VideoOptions, preview: bool
) -> Request | None:
    """Return the request that the command line makes; None if its inputs are images.

    Raises `InputError` or `VideoError` for invalid combinations, `MissingExtraError` without PyAV.
    """
    if video.camera is None and not is_video(inputs, out):
        given = given_options(VideoOptions)
        if given:
            raise InputError(f"{', '.join(given)}: only for video, but the inputs are images")
        return None
    if len(inputs) > 1:
        raise InputError("give one clip at a time, each with its own output")
    if video.raw_size is not None and video.raw is None:
        raise InputError("--raw-size is the size of raw frames; give --raw too")
    try:
        from ikc_deploy.video.camera import CameraSettings
        from ikc_deploy.video.clip import Span
        from ikc_deploy.video.raw import RawFormat
        from ikc_deploy.video.request import Request
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "av", "video", "video") from error
    camera = None
    if video.camera is not None:
        seconds = None if video.duration is None else float(video.duration)
        camera = CameraSettings(video.camera, seconds, deinterlace=video.deinterlace)
    return Request(
        source=inputs[0] if inputs else None,
        target=out,
        camera=camera,
        span=Span(video.start or Fraction(0), video.duration),
        encoder=video.encoder,
        raw=RawFormat(video.raw, *(video.raw_size or (0, 0))) if video.raw else None,
        rate=video.rate,
        resume=video.resume,
        deinterlace=video.deinterlace,
        preview=preview,
    )


def upscale_video(
    request: Request, choice: UpscalerChoice, postprocessing: Postprocessing, as_json: bool
) -> None:
    """Run a request with a progress bar and warnings, and print a line at the end.

    Exits with code 130 after Ctrl-C; the output is completed first, with the frames done so far.
    """
    from ikc_deploy.video.interfaces import UpscalerAdapter
    from ikc_deploy.video.postprocessed import PostprocessedFrames, coded_size
    from ikc_deploy.video.request import open_sink, open_source
    from ikc_deploy.video.stream_job import upscale_stream

    stop = threading.Event()
    # Accessed only if they carry frames: under a test or a service they may not exist.
    pipes = (lambda: sys.stdin.buffer), (lambda: sys.stdout.buffer)
    with open_source(request, pipes[0], stop, warn) as source, choice.open_upscaler() as upscaler:
        estimate = _estimate(choice)
        each = UpscalerAdapter(upscaler, choice.sigma, estimate)
        facts = source.facts.scaled(each.scale)
        if postprocessing.resizes:
            facts = source.facts.resized(*coded_size(source.facts, postprocessing, each.scale))
        size = facts.height, facts.width
        run = {
            "weights": upscaler.bundle.manifest.weights_sha256,
            "iters": upscaler.iters,
            "sigma": choice.sigma,
            "estimate": estimate,
            "size": size,
            "strength": postprocessing.strength,
            "preview": postprocessing.preview,
            "deinterlace": request.deinterlace,
        }
        sink = open_sink(request, source, facts, run, pipes[1], stop)
        for warning in sink.warnings:
            warn(warning)
        worker = PostprocessedFrames(each, postprocessing, size)
        with (
            progress_bars(speed="fps", keep=True) as bars,
            interruptible(stop) as interrupted,
        ):
            bars.show("upscaling", sink.done, facts.frames)
            outcome = upscale_stream(
                source,
                worker,
                sink,
                stop,
                lambda done: bars.show("upscaling", done, facts.frames),
                request.live,
            )
    _print(request, source.facts, facts, outcome, as_json)
    if interrupted.is_set():
        raise SystemExit(130)


def _estimate(choice: UpscalerChoice) -> Estimate:
    """Return the given way to estimate the blur, or the default one of clips."""
    if "--estimate" in given_options(UpscalerOptions):
        return choice.options.estimate
    return CLIP_ESTIMATE


def _print(
    request: Request, lr: StreamFacts, sr: StreamFacts, outcome: StreamOutcome, as_json: bool
) -> None:
    """Print the warnings of a run and a line about its output."""
    for warning in outcome.warnings:
        warn(warning)
    known = request, lr, sr, outcome
    line = json.dumps(_facts(*known)) if as_json else _line(*known)
    # Standard output is the video, if there is one.
    say(line, err=request.target == PIPE)


def _line(request: Request, lr: StreamFacts, sr: StreamFacts, outcome: StreamOutcome) -> str:
    parts = [
        f"{request.target or 'window'}: {lr.width}x{lr.height} -> {sr.width}x{sr.height}",
        f"{outcome.frames} frames",
    ]
    if request.live:
        parts.append(f"{outcome.dropped} dropped")
    if outcome.interrupted:
        parts.append("interrupted")
        resumable = not request.live and PIPE not in (request.source, request.target)
        parts += ["continue with --resume"] if resumable else []
    return ", ".join(parts)


def _facts(
    request: Request, lr: StreamFacts, sr: StreamFacts, outcome: StreamOutcome
) -> dict[str, object]:
    return {
        "input": request.camera.name if request.camera else str(request.source),
        "output": None if request.target is None else str(request.target),
        "lr": [lr.height, lr.width],
        "sr": [sr.height, sr.width],
        "frames": outcome.frames,
        "dropped": outcome.dropped,
        "interrupted": outcome.interrupted,
        "warnings": outcome.warnings,
    }
