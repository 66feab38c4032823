"""ikc-upscale on video: options, progress and interruption."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ikc_deploy.cli._blur_options import BlurOptions
from ikc_deploy.cli._common import err_console, warn
from ikc_deploy.cli._interrupt import interruptible
from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.names import PIPE, is_video

if TYPE_CHECKING:
    from ikc_deploy.video.interfaces import StreamFacts
    from ikc_deploy.video.request import Request
    from ikc_deploy.video.stream_job import StreamOutcome

_Command = TypeVar("_Command", bound=Callable[..., Any])

VIDEO_ESTIMATE: Final[Estimate] = "track"
"""Default way to estimate the blur of video; docs/estimation.md explains it."""

_CLOCK: Final = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")
_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")


@dataclass(frozen=True)
class VideoOptions:
    """The video options of a command line; None and False for those not given."""

    codec: str | None
    crf: float | None
    start: Fraction | None
    duration: Fraction | None
    preview: bool
    resume: bool
    camera: str | None
    raw: str | None
    size: tuple[int, int] | None
    rate: Fraction | None

    def given(self) -> list[str]:
        """Return the names of the given options, as on the command line."""
        return [f"--{each.name}" for each in fields(self) if getattr(self, each.name)]


def video_options(command: _Command) -> _Command:
    """Add the options for video to a command, as one parameter `video: VideoOptions`."""

    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        video = VideoOptions(**{each.name: kwargs.pop(each.name) for each in fields(VideoOptions)})
        return command(*args, **kwargs, video=video)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return cast("_Command", gathered)


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> Fraction | None:
    if text is None:
        return None
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        raise click.BadParameter(
            f"invalid time '{text}': expected for example 90, 1:30 or 0:01:30.5"
        )
    return 3600 * int(clock[1] or 0) + 60 * int(clock[2] or 0) + Fraction(clock[3])


def _size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    size = _SIZE.fullmatch(text.strip().lower())
    if size is None:
        raise click.BadParameter(
            f"invalid size '{text}': expected WIDTHxHEIGHT, for example 640x360"
        )
    return int(size[1]), int(size[2])


def _rate(_: click.Context, __: click.Parameter, text: str | None) -> Fraction | None:
    try:
        return None if text is None else Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(
            f"invalid rate '{text}': expected for example 25 or 30000/1001"
        ) from None


_OPTIONS: Final = (
    click.option(
        "--codec",
        help="h264, hevc, av1 or vp9 (on the GPU if NVENC opens), or an encoder of FFmpeg.  "
        "[default: h264; hevc above 8 bits or 4096 pixels]",
    ),
    click.option(
        "--crf",
        type=click.FloatRange(0, 63),
        help="Constant quality on the encoder's scale; lower is better.  [default: by encoder]",
    ),
    click.option("--start", metavar="TIME", callback=_seconds, help="Start time in the clip."),
    click.option(
        "--duration", metavar="TIME", callback=_seconds, help="Length of the part to upscale."
    ),
    click.option(
        "--preview",
        is_flag=True,
        help="Upscale three seconds; the left half is only enlarged bicubically.",
    ),
    click.option("--resume", is_flag=True, help="Resume an interrupted run."),
    click.option(
        "--camera",
        metavar="ADDRESS",
        help="Camera instead of INPUT: the number of a V4L2 device, or a URL (rtsp://...); "
        "without -o, shown in a window.",
    ),
    click.option(
        "--raw",
        metavar="FORMAT",
        help="Pixel format of raw video on pipes (-): rgb24, yuv420p, ...",
    ),
    click.option("--size", metavar="WxH", callback=_size, help="Size of the raw input frames."),
    click.option(
        "--rate",
        callback=_rate,
        help="Frames per second of a folder of frames or raw video.  [default: 25]",
    ),
)


def video_request(
    inputs: tuple[Path, ...], out: Path | None, video: VideoOptions
) -> Request | None:
    """Return the request that the command line makes; None if its inputs are images.

    Raises `InputError` or `VideoError` for invalid combinations, `MissingExtraError` without PyAV.
    """
    if video.camera is None and not is_video(inputs, out):
        if video.given():
            raise InputError(
                f"{', '.join(video.given())}: only for video, but the inputs are images"
            )
        return None
    if len(inputs) > 1:
        raise InputError("give one clip at a time, each with its own output")
    if video.size is not None and video.raw is None:
        raise InputError("--size is the size of raw frames; give --raw too")
    try:
        from ikc_deploy.video.camera import CameraSettings
        from ikc_deploy.video.clip import Span
        from ikc_deploy.video.encoders import AUTO, EncoderSettings
        from ikc_deploy.video.raw import RawFormat
        from ikc_deploy.video.request import Request
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "av", "video", "video") from error
    camera = None
    if video.camera is not None:
        seconds = None if video.duration is None else float(video.duration)
        camera = CameraSettings(video.camera, seconds)
    return Request(
        source=inputs[0] if inputs else None,
        target=out,
        camera=camera,
        span=Span(video.start or Fraction(0), video.duration),
        encoder=EncoderSettings(video.codec or AUTO, video.crf),
        raw=RawFormat(video.raw, *(video.size or (0, 0))) if video.raw else None,
        rate=video.rate,
        resume=video.resume,
        preview=video.preview,
    )


def upscale_video(
    request: Request,
    open_upscaler: Callable[[], Upscaler],
    blur: BlurOptions,
    as_json: bool,
) -> None:
    """Run a request with a progress bar and warnings, and print a line at the end.

    Exits with code 130 after Ctrl-C; the output is completed first, with the frames done so far.
    """
    from ikc_deploy.video.interfaces import UpscalerAdapter
    from ikc_deploy.video.preview import SplitView
    from ikc_deploy.video.request import open_sink, open_source
    from ikc_deploy.video.stream_job import upscale_stream

    stop = threading.Event()
    # Accessed only if they carry frames: under a test or a service they may not exist.
    pipes = (lambda: sys.stdin.buffer), (lambda: sys.stdout.buffer)
    with open_source(request, pipes[0], stop, warn) as source, open_upscaler() as upscaler:
        estimate = blur.estimate or VIDEO_ESTIMATE
        each = UpscalerAdapter(upscaler, blur.sigma, estimate)
        facts = source.facts.scaled(each.scale)
        run = {
            "weights": upscaler.bundle.manifest.weights_sha256,
            "iters": upscaler.iters,
            "sigma": blur.sigma,
            "estimate": estimate,
        }
        sink = open_sink(request, source, facts, run, pipes[1], stop)
        for warning in sink.warnings:
            warn(warning)
        worker = SplitView(each) if request.preview else each
        with _progress(facts.frames, sink.done) as show, interruptible(stop) as interrupted:
            outcome = upscale_stream(source, worker, sink, stop, show, request.live)
    for warning in outcome.warnings:
        warn(warning)
    line = json.dumps(_facts(request, source.facts, facts, outcome))
    if not as_json:
        line = _line(request, source.facts, facts, outcome)
    # Standard output is the video, if there is one.
    click.echo(line, err=request.target == PIPE)
    if interrupted.is_set():
        raise SystemExit(130)


@contextmanager
def _progress(total: int | None, done: int) -> Generator[Callable[[int], None], None, None]:
    """Show a bar on standard error if it is a terminal; yield a function that takes the count."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _FramesPerSecond(),
        TimeRemainingColumn(),
    )
    quiet = not err_console.is_terminal
    with Progress(*columns, console=err_console, redirect_stdout=False, disable=quiet) as bars:
        task = bars.add_task("upscaling", total=total, completed=done)
        yield lambda count: bars.update(task, completed=count)


class _FramesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the recent speed in frames per second."""
        return Text("" if task.speed is None else f"{task.speed:.2f} fps")


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
