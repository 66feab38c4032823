"""`Request`: source, target and settings of a video run, validated before anything is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from ikc_deploy.errors import UnreadableClipError, VideoError
from ikc_deploy.imaging.input_files import missing_hint
from ikc_deploy.video.camera import Camera, CameraSettings
from ikc_deploy.video.chunks import WorkFolder
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.file_sink import FileSettings, FileSink
from ikc_deploy.video.image_sequence import ImageSequence, NumberedImages, image_path
from ikc_deploy.video.interfaces import Sink, Source, StreamFacts
from ikc_deploy.video.names import (
    CONTAINERS,
    DEFAULT_RATE,
    PIPE,
    Deinterlace,
    is_image,
    is_image_pattern,
    is_numbered,
)
from ikc_deploy.video.raw import RawFormat, RawSink, open_raw
from ikc_deploy.video.window import WindowSink

PREVIEW_SECONDS: Final = Fraction(3)


@dataclass(frozen=True)
class Request:
    """The request of one run from a source to a target.

    Raises:
        VideoError: Fields contradict each other; the message names the options of `ikc-upscale`.
    """

    source: Path | None = None
    """Clip, folder or pattern of images, or `PIPE`; None for a camera."""
    target: Path | None = None
    """Video file, pattern of numbered images (`%06d.png`) or `PIPE`; None for a window."""
    camera: CameraSettings | None = None
    """Camera to read; None for `source`."""
    span: Span = field(default_factory=Span)
    """Part of the clip to upscale."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """Codec and quality of a video file."""
    raw: RawFormat | None = None
    """Format of raw video on pipes; None without pipes."""
    rate: Fraction | None = None
    """Frames per second of images and raw video; None for 25."""
    resume: bool = False
    """Whether to resume an unfinished run."""
    deinterlace: Deinterlace = "auto"
    """Which frames are deinterlaced."""
    preview: bool = False
    """Whether to write only the first seconds."""

    def __post_init__(self) -> None:
        """Require options that can be used together and with the output."""
        for refused, message in chain(self._refused_ends(), self._refused_options()):
            if refused:
                raise VideoError(message)

    @property
    def live(self) -> bool:
        """Whether the source is live, so that its frames do not wait."""
        return self.camera is not None

    @property
    def reads_images(self) -> bool:
        """Whether the source is a folder or a pattern of images."""
        return self.source is not None and (self.source.is_dir() or is_image_pattern(self.source))

    def _refused_ends(self) -> Iterator[tuple[bool, str]]:
        """Yield what is refused of source and target, with messages."""
        live, pipes = self.live, PIPE in (self.source, self.target)
        a_file = self.target is not None and self.target.suffix.lower() in CONTAINERS
        yield live == (self.source is not None), "give one clip, one folder or pipe, or --camera"
        yield self.target is None and not live, "name the output with -o"
        ends = (self.source, self.target)
        yield (
            pipes and any(end is not None and is_image(end) for end in ends),
            "a pipe (-) is raw video; for an image, give files (or /dev/stdin as the input)",
        )
        yield (
            not (self.target in (None, PIPE) or a_file or is_numbered(self.target or PIPE)),
            f"invalid video output '{self.target}': give a file ending in "
            f"{', '.join(CONTAINERS)}, numbered images as frames/%06d.png, or -",
        )
        yield (
            pipes and self.raw is None,
            "a pipe (-) needs a raw format: give it with --raw y4m or --raw rgb24",
        )
        yield self.raw is not None and not pipes, "--raw is for pipes: give - as input or output"
        yield (
            self.encoder != EncoderSettings() and not a_file,
            "--codec and --crf are for video files",
        )
        yield (
            _same_file(self.source, self.target),
            f"'{self.source}' would be overwritten; choose another output",
        )

    def _refused_options(self) -> Iterator[tuple[bool, str]]:
        """Yield what is refused of the other options, with messages."""
        live, frames, pipes = self.live, self.reads_images, PIPE in (self.source, self.target)
        y4m = self.raw is not None and self.raw.is_y4m
        yield (
            self.rate is not None and not (frames or self.source == PIPE),
            "--rate is for images and raw video; a clip or camera has its own rate",
        )
        yield (
            self.rate is not None and self.source == PIPE and y4m,
            "y4m contains the rate; leave out --rate",
        )
        yield self.rate is not None and self.rate <= 0, "--rate must be above 0 frames a second"
        yield (
            frames and self.span != Span(),
            "--start and --duration are for clips; give only the images to upscale",
        )
        yield (
            frames and self.deinterlace != "auto",
            "--deinterlace is for clips, cameras and pipes, not for images",
        )
        yield live and self.span.start > 0, "a camera has no --start"
        yield (
            self.resume and (live or pipes),
            "--resume needs an input that can be read again, and an output file",
        )
        yield self.preview and (live or pipes or frames), "--preview is for clips"

    def first_file(self) -> Path | None:
        """Return the file that the run would create or replace; the first of numbered images.

        None for a window or a pipe, and if an unfinished run is resumed.

        Raises:
            VideoError: There is an unfinished run, but it is not resumed.
        """
        if self.target is None or self.target == PIPE:
            return None
        if is_numbered(self.target):
            return None if self.resume else image_path(self.target, 1)
        unfinished = WorkFolder(self.target)
        if not self.resume:
            unfinished.refuse_unfinished()
        return None if unfinished.exists else self.target


@contextmanager
def open_source(
    request: Request,
    stdin: Callable[[], BinaryIO],
    stop: threading.Event,
    notify: Callable[[str], None],
) -> Generator[Source, None, None]:
    """Open the source of a request; close it at the end of the block.

    Args:
        request: The request.
        stdin: Returns the input pipe; called only if the source is `PIPE`.
        stop: Event that ends a camera or a pipe.
        notify: Called with messages about the connection of a camera.

    Raises:
        UnreadableClipError: The clip or pipe cannot be read.
        NoVideoError: The clip has no video stream.
        CameraError: The camera does not answer.
        InputError: There is no image in the folder or of the pattern.
    """
    rate = request.rate or DEFAULT_RATE
    if request.camera is not None:
        with closing(Camera(request.camera, stop, notify)) as camera:
            yield camera
    elif request.source == PIPE and request.raw is not None:
        with closing(
            open_raw(stdin(), request.raw, rate, request.span, stop, request.deinterlace)
        ) as pipe:
            yield pipe
    elif request.source is not None and request.reads_images:
        yield ImageSequence(request.source, rate)
    elif request.source is not None:
        if not request.source.exists():
            hint = missing_hint(request.source)
            raise UnreadableClipError(f"there is no clip or folder '{request.source}'{hint}")
        with closing(Clip(request.source, _span(request), deinterlace=request.deinterlace)) as clip:
            yield clip


def open_sink(
    request: Request,
    source: Source,
    facts: StreamFacts,
    run: Mapping[str, Any],
    stdout: Callable[[], BinaryIO],
    stop: threading.Event,
) -> Sink:
    """Open the sink of a request.

    Args:
        request: The request.
        source: The source that `open_source` opened for it.
        facts: Properties of the output frames.
        run: Settings of the run (JSON values), which a resumed run must share.
        stdout: Returns the output pipe; called only if the target is `PIPE`.
        stop: Event that a window sets when the user ends it.

    Raises:
        VideoError: The output cannot be written.
        EncoderError: No encoder works.
        DiskFullError: The disk is full.
        MissingExtraError: The target is a window and OpenCV is not installed.
    """
    target = request.target
    if target is None:
        return WindowSink(stop)
    if target == PIPE and request.raw is not None:
        return RawSink(stdout(), request.raw.pixel_format, facts)
    if is_numbered(target):
        return NumberedImages(target, request.resume, (facts.height, facts.width))
    settings = FileSettings(target, request.encoder, request.resume)
    clip = source if isinstance(source, Clip) and request.source != PIPE else None
    return FileSink(settings, facts, dict(run), clip)


def _same_file(source: Path | None, target: Path | None) -> bool:
    if source is None or target is None or PIPE in (source, target):
        return False
    try:
        return source.samefile(target)
    except OSError:
        return source.absolute() == target.absolute()


def _span(request: Request) -> Span:
    if request.preview and request.span.duration is None:
        return Span(request.span.start, PREVIEW_SECONDS)
    return request.span
