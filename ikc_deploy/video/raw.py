"""Raw video on pipes: the samples of one frame after another, without headers."""

from __future__ import annotations

import os
import select
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Final

import av
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.colour import FromRgb
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.names import Deinterlace
from ikc_deploy.video.write_errors import reason_of

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
        """Require the name of a pixel format in memory; those of devices have no samples."""
        if not _is_in_memory(self.pixel_format):
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
        # Arrays of PyAV have another order of planes and bytes in some formats.
        self._encoder = av.VideoCodecContext.create("rawvideo", "w")
        self._encoder.width, self._encoder.height = facts.width, facts.height
        self._encoder.pix_fmt, self._encoder.time_base = pixel_format, facts.time_base
        self._coded(np.zeros((facts.height, facts.width, 3), np.uint8))

    def write(self, frame: Frame) -> None:
        """Write the next frame; raise `BrokenPipeError` if the reader has closed the pipe."""
        self._pipe.write(self._coded(frame.rgb))

    def _coded(self, rgb: NDArray[np.uint8]) -> bytes:
        """Return the samples of a frame; raise `VideoError` if FFmpeg cannot write the format."""
        try:
            packets = self._encoder.encode(self._from_rgb(rgb))
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(
                f"raw video cannot be written as '{self._encoder.pix_fmt}' "
                f"({reason_of(error)}); choose for example rgb24 or yuv420p"
            ) from error
        return b"".join(map(bytes, packets))

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - a pipe is never finished
        """Flush the pipe."""
        self._pipe.flush()
        return ()

    def abort(self) -> None:
        """Do nothing; written frames cannot be withdrawn."""


def _is_in_memory(pixel_format: str) -> bool:
    try:
        return bool(av.VideoFormat(pixel_format).components)
    except ValueError:
        return False


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
