"""Raw video on pipes: the samples of one frame after another, without headers."""

from __future__ import annotations

import os
import select
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Final

from av.video.frame import supported_np_pix_fmts

from ikc_deploy.errors import VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.colour import FromRgb
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.names import Deinterlace

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class RawFormat:
    """The format of raw video on a pipe.

    Raises:
        VideoError: The pixel format is not supported.
    """

    pixel_format: str = "rgb24"
    """FFmpeg's name of the pixel format."""
    width: int = 0
    """Width in pixels; 0 if the pipe is only written."""
    height: int = 0
    """Height in pixels; 0 if the pipe is only written."""

    def __post_init__(self) -> None:
        """Require a pixel format that numpy arrays can hold."""
        if self.pixel_format not in supported_np_pix_fmts:
            raise VideoError(
                f"invalid pixel format of raw video '{self.pixel_format}': expected for example "
                "rgb24, bgr24, yuv420p, nv12 or yuv420p10le"
            )


def open_raw(
    pipe: BinaryIO,
    raw: RawFormat,
    rate: Fraction,
    span: Span,
    stop: threading.Event,
    deinterlace: Deinterlace = "auto",
) -> Clip:
    """Open raw video on a pipe as a clip, which ends with the pipe or when `stop` is set.

    Args:
        pipe: A readable pipe with a file descriptor.
        raw: Pixel format and size of the frames.
        rate: Frames per second.
        span: The part to upscale.
        stop: Event that ends the clip.
        deinterlace: Which frames are deinterlaced; raw frames are never marked as interlaced.

    Raises:
        VideoError: `raw` has no size; or as raised by `Clip`.
    """
    if raw.width < 1 or raw.height < 1:
        raise VideoError("the frame size of raw video on a pipe is not known; give --raw-size WxH")
    options = {
        "pixel_format": raw.pixel_format,
        "video_size": f"{raw.width}x{raw.height}",
        "framerate": str(rate),
    }
    source: Any = _Pipe(pipe, stop)
    return Clip(source, span, "rawvideo", options, deinterlace=deinterlace)


class RawSink:
    """A sink that writes raw frames to a pipe.

    Args:
        pipe: Binary file to write to; the caller closes it.
        pixel_format: FFmpeg's name of the pixel format.
        facts: Size and colour of the frames.

    Raises:
        VideoError: The pixel format is not supported.
    """

    done = 0
    warnings = ()

    def __init__(self, pipe: BinaryIO, pixel_format: str, facts: StreamFacts) -> None:
        RawFormat(pixel_format)
        self._pipe = pipe
        self._from_rgb = FromRgb(facts.colour, pixel_format)

    def write(self, frame: Frame) -> None:
        """Write the next frame; raise `BrokenPipeError` if the reader has closed the pipe."""
        self._pipe.write(self._from_rgb(frame.rgb).to_ndarray().tobytes())

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - a pipe is never finished
        """Flush the pipe."""
        self._pipe.flush()
        return ()

    def abort(self) -> None:
        """Do nothing; written frames cannot be withdrawn."""


class _Pipe:
    """A readable pipe that ends early when `stop` is set, even while no data arrives."""

    name = "pipe"

    def __init__(self, pipe: BinaryIO, stop: threading.Event) -> None:
        self._descriptor = pipe.fileno()
        self._stop = stop

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end."""
        while not select.select([self._descriptor], [], [], _LOOK_SECONDS)[0]:
            if self._stop.is_set():
                return b""
        return os.read(self._descriptor, size)
