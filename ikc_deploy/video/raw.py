"""Raw video on pipes: the samples of one frame after another, alone or as YUV4MPEG2 (y4m).

y4m adds a header with size, rate, pixel format, range, aspect ratio and interlacing, and a line
before every frame.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Final

import av
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import UnreadableClipError, VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.colour import FromRgb, infer_colour, matrix_name
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.names import Deinterlace
from ikc_deploy.video.write_errors import explained, reason_of

Y4M: Final = "y4m"
"""Format that has a header with size, rate and pixel format."""

_POLL_SECONDS: Final = 0.1

_Y4M_CHROMA: Final = {
    "yuv420p": "420mpeg2",
    "yuv422p": "422",
    "yuv444p": "444",
    "yuv420p10le": "420p10",
    "yuv422p10le": "422p10",
    "yuv444p10le": "444p10",
}
"""Value of the header's chroma field for each pixel format that is written."""


@dataclass(frozen=True)
class RawFormat:
    """The format of raw video on a pipe.

    Raises:
        VideoError: The pixel format is not supported, or y4m is given a size.
    """

    pixel_format: str = "rgb24"
    """FFmpeg's name of the pixel format, or `Y4M`."""
    width: int = 0
    """Width in pixels; 0 for y4m, and if the pipe is only written."""
    height: int = 0
    """Height in pixels; 0 for y4m, and if the pipe is only written."""

    def __post_init__(self) -> None:
        """Require the name of a pixel format in memory; those of devices have no samples."""
        if self.is_y4m and (self.width or self.height):
            raise VideoError("y4m contains the frame size; leave out --raw-size")
        if not self.is_y4m and not _is_in_memory(self.pixel_format):
            raise VideoError(
                f"invalid pixel format of raw video '{self.pixel_format}': expected y4m, or for "
                "example rgb24, bgr24, yuv420p, nv12 or yuv420p10le"
            )

    @property
    def is_y4m(self) -> bool:
        """Whether the video has a header with size, rate and pixel format."""
        return self.pixel_format == Y4M


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
        rate: Frames per second; ignored for y4m.
        span: The part to upscale.
        stop: Event that ends the clip.
        deinterlace: Which frames are deinterlaced; only y4m marks frames as interlaced.

    Raises:
        VideoError: `raw` has no size; or as raised by `Clip`.
        UnreadableClipError: The pipe is not y4m, or has an unknown chroma format.
    """
    source: Any = _Pipe(pipe, stop)
    if raw.is_y4m:
        try:
            with explained():
                return Clip(source, span, "yuv4mpegpipe", deinterlace=deinterlace)
        except UnreadableClipError as error:
            raise UnreadableClipError(
                f"{error}; --raw y4m expects YUV4MPEG2, for example from ffmpeg -f yuv4mpegpipe "
                "-pix_fmt yuv420p, or from vspipe -c y4m"
            ) from error
    if raw.width < 1 or raw.height < 1:
        raise VideoError("the frame size of raw video on a pipe is not known; give --raw-size WxH")
    options = {
        "pixel_format": raw.pixel_format,
        "video_size": f"{raw.width}x{raw.height}",
        "framerate": str(rate),
    }
    return Clip(source, span, "rawvideo", options, deinterlace=deinterlace)


class RawSink:
    """A sink that writes raw frames to a pipe.

    Args:
        pipe: Binary file to write to; the caller closes it.
        pixel_format: FFmpeg's name of the pixel format, or `Y4M` for 8- or 10-bit YUV with the
            chroma subsampling of the source.
        facts: Properties of the frames; y4m stores the rate as constant.

    Raises:
        VideoError: The pixel format is not supported.
    """

    done = 0

    def __init__(self, pipe: BinaryIO, pixel_format: str, facts: StreamFacts) -> None:
        self._header = self._frame_header = b""
        if RawFormat(pixel_format).is_y4m:
            pixel_format = _y4m_pixel_format(facts)
            self._header, self._frame_header = _y4m_header(facts, pixel_format), b"FRAME\n"
        self.warnings = list(_untagged(facts, pixel_format))
        self._pipe = pipe
        self._from_rgb = FromRgb(facts.colour, pixel_format)
        # Arrays of PyAV have another order of planes and bytes in some formats.
        self._encoder = av.VideoCodecContext.create("rawvideo", "w")
        self._encoder.width, self._encoder.height = facts.width, facts.height
        self._encoder.pix_fmt, self._encoder.time_base = pixel_format, facts.time_base
        self._coded(np.zeros((facts.height, facts.width, 3), np.uint8))

    def write(self, frame: Frame) -> None:
        """Write the next frame; raise `BrokenPipeError` if the reader has closed the pipe."""
        samples = self._coded(frame.rgb)
        self._pipe.write(self._header + self._frame_header + samples)
        self._header = b""

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


def _y4m_pixel_format(facts: StreamFacts) -> str:
    # An odd side cannot be halved to a whole number of chroma samples.
    odd = facts.width % 2 or facts.height % 2
    return f"yuv{'444' if odd else facts.subsampling}p" + ("10le" if facts.bits > 8 else "")


def _y4m_header(facts: StreamFacts, pixel_format: str) -> bytes:
    rate, aspect, chroma = facts.rate, facts.aspect, _Y4M_CHROMA[pixel_format]
    fields = (
        "YUV4MPEG2",
        f"W{facts.width}",
        f"H{facts.height}",
        f"F{rate.numerator}:{rate.denominator}",
        "Ip",
        f"A{aspect.numerator}:{aspect.denominator}",
        f"C{chroma}",
        f"XYSCSS={chroma.upper()}",
        f"XCOLORRANGE={'FULL' if facts.colour.full_range else 'LIMITED'}",
    )
    return " ".join(fields).encode() + b"\n"


def _untagged(facts: StreamFacts, pixel_format: str) -> Iterator[str]:
    """Yield a warning if programs that read the frames would assume another colour matrix."""
    described = av.VideoFormat(pixel_format)
    if described.is_rgb or len(described.components) < 3:
        return  # Grey has no matrix either.
    assumed = infer_colour(facts.width, facts.height, pixel_format)
    name, other = (matrix_name(colour) for colour in (facts.colour, assumed))
    if name != other:
        yield (
            f"raw video has no colour tags: its matrix is {name}, but {other} is assumed at "
            f"{facts.width}x{facts.height}; specify {name} in the program that reads it"
        )


def _is_in_memory(pixel_format: str) -> bool:
    try:
        return bool(av.VideoFormat(pixel_format).components)
    except ValueError:
        return False


class _Pipe:
    """A readable pipe that ends early when `stop` is set, even while no data arrives."""

    name = "pipe"

    def __init__(self, pipe: BinaryIO, stop: threading.Event) -> None:
        self._pipe = pipe
        self._stop = stop

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end."""
        while not select.select([self._pipe], [], [], _POLL_SECONDS)[0]:
            if self._stop.is_set():
                return b""
        return os.read(self._pipe.fileno(), size)
