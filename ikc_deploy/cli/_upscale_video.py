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
from ikc_deploy.cli._ui import counted, note, progress_bars, say, warn
from ikc_deploy.cli._upscaler_choice import UpscalerChoice
from ikc_deploy.cli._value_types import RATE, TIME, WIDTH_HEIGHT
from ikc_deploy.errors import InputError, needs_extra
from ikc_deploy.imaging.output_paths import ExistingOutputs
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.option_fields import Option
from ikc_deploy.runtime.given_blur import BlurSettings
from ikc_deploy.runtime.options import CLIP_ESTIMATE, UpscalerOptions
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.names import DEFAULT_RATE, PIPE, Deinterlace, is_image

if TYPE_CHECKING:
    from ikc_deploy.video.clip_upscaler import ClipUpscaler
    from ikc_deploy.video.request import Request
    from ikc_deploy.video.video_run import VideoReport


@dataclass(frozen=True)
class VideoOptions:
    """The video options of a command line; None and False for those not given."""

    encoder: EncoderSettings
    start: Annotated[
        Fraction | None,
        Option("Start time in the clip: 90 or 1:30.", heading="Video", metavar="TIME"),
    ] = None
    duration: Annotated[
        Fraction | None,
        Option("Length of the part to upscale, as --start.", heading="Video", metavar="TIME"),
    ] = None
    deinterlace: Annotated[
        Deinterlace,
        Option(
            "Deinterlace with bwdif, at the same frame rate; auto: frames that are marked as "
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
            "Format of raw video on pipes (-): y4m, which contains size and rate, or a pixel "
            "format such as rgb24 or yuv420p.",
            heading="Video",
            metavar="FORMAT",
        ),
    ] = None
    raw_size: Annotated[
        tuple[int, int] | None,
        Option("Size of raw input frames.", heading="Video", metavar="WxH"),
    ] = None
    rate: Annotated[
        Fraction | None,
        Option(
            "Frames per second of images or raw video.",
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


STREAM_ONLY: Final = ("--camera", "--raw", "--raw-size", "--rate")
"""Options that have no meaning for clips that are files in a folder."""


def video_request(
    inputs: tuple[Path, ...], out: Path | None, video: VideoOptions, preview: bool
) -> Request:
    """Return the request that the command line makes.

    Raises `InputError` or `VideoError` for invalid combinations, `MissingExtraError` without PyAV.
    """
    if len(inputs) > 1:
        hint = (
            "for a clip of images, give their folder, or a pattern such as 'frames/%04d.png'"
            if all(is_image(path) for path in inputs)
            else "give a folder, in which outputs keep their names"
        )
        raise InputError(f"'{out}' is one output, but there are {len(inputs)} inputs; {hint}")
    if video.raw_size is not None and video.raw is None:
        raise InputError("--raw-size is the size of raw frames; give --raw too")
    return clip_request(inputs[0] if inputs else None, out, video, preview)


def clip_request(
    source: Path | None, target: Path | None, video: VideoOptions, preview: bool
) -> Request:
    """Return the request of one clip or stream; raise what `video_request` raises."""
    with needs_extra("video", "video"):
        from ikc_deploy.video.camera import CameraSettings
        from ikc_deploy.video.clip import Span
        from ikc_deploy.video.raw import RawFormat
        from ikc_deploy.video.request import Request
    camera = None
    if video.camera is not None:
        seconds = None if video.duration is None else float(video.duration)
        camera = CameraSettings(video.camera, seconds, deinterlace=video.deinterlace)
    return Request(
        source=source,
        target=target,
        camera=camera,
        span=Span(video.start or Fraction(0), video.duration),
        encoder=video.encoder,
        raw=RawFormat(video.raw, *(video.raw_size or (0, 0))) if video.raw else None,
        rate=video.rate,
        resume=video.resume,
        deinterlace=video.deinterlace,
        preview=preview,
    )


def clip_upscaler(
    upscaler: Upscaler, choice: UpscalerChoice, postprocessing: Postprocessing
) -> ClipUpscaler:
    """Return the upscaler of a clip's frames, with the blur of the command line."""
    from ikc_deploy.video.clip_upscaler import ClipUpscaler

    given = "--estimate" in given_options(UpscalerOptions)
    estimate = choice.options.estimate if given else CLIP_ESTIMATE
    blur = BlurSettings(choice.sigma, estimate=estimate)
    return ClipUpscaler(upscaler, blur, postprocessing)


def upscale_video(
    request: Request,
    choice: UpscalerChoice,
    postprocessing: Postprocessing,
    existing: ExistingOutputs,
    as_json: bool,
) -> None:
    """Run a request with a progress bar and warnings, and print a line at the end.

    Exits with code 130 after Ctrl-C; the output is completed first, with the frames done so far.
    """
    from ikc_deploy.video.video_run import Callbacks, run_request

    written = request.first_file()
    if written is not None:
        if existing.skips(written):
            note(f"skipped, the output exists: {written}")
            return
        existing.check([written])
    stop = threading.Event()
    with (
        choice.open_upscaler() as upscaler,
        progress_bars(keep=True) as bars,
        interruptible(stop) as interrupted,
    ):
        callbacks = Callbacks(
            warn,
            lambda done, total: bars.show("upscaling", done, total, unit="fps"),
            # Accessed only if they carry frames: under a test or a service they may not exist.
            lambda: sys.stdin.buffer,
            lambda: sys.stdout.buffer,
        )
        frames = clip_upscaler(upscaler, choice, postprocessing)
        report = run_request(request, frames, stop, callbacks)
    # Standard output is the video, if there is one.
    say(report_text(request, report, as_json), err=request.target == PIPE)
    if interrupted.is_set():
        raise SystemExit(130)


def report_text(request: Request, report: VideoReport, as_json: bool) -> str:
    """Return the line of a finished run, or its JSON."""
    return json.dumps(_facts(request, report)) if as_json else _line(request, report)


def _line(request: Request, report: VideoReport) -> str:
    lr, sr = report.lr, report.sr
    parts = [
        f"{request.target or 'window'}: {lr.width}x{lr.height} -> {sr.width}x{sr.height}",
        counted(report.frames, "frame"),
    ]
    if request.live:
        parts.append(f"{report.dropped} dropped")
    if report.interrupted:
        parts.append("interrupted")
        resumable = not request.live and PIPE not in (request.source, request.target)
        parts += ["continue with --resume"] if resumable else []
    return ", ".join(parts)


def _facts(request: Request, report: VideoReport) -> dict[str, object]:
    lr, sr = report.lr, report.sr
    return {
        "input": request.camera.name if request.camera else str(request.source),
        "output": None if request.target is None else str(request.target),
        "lr": [lr.height, lr.width],
        "sr": [sr.height, sr.width],
        "frames": report.frames,
        "dropped": report.dropped,
        "interrupted": report.interrupted,
        "warnings": report.warnings,
    }
