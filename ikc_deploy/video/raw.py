"""Raw video on pipes: samples of one pixel format after another, nothing else."""

from __future__ import annotations

import os
import select
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Final

from av.video.frame import supported_np_pix_fmts

from ikc_deploy.errors import VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.colour import FromRgb
from ikc_deploy.video.interfaces import Frame, StreamFacts

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class RawFormat:
    """What the bytes on a pipe mean."""

    pixel_format: str = "rgb24"
    """FFmpeg's name."""
    width: int = 0
    height: int = 0
    """In pixels; 0 where a pipe is only written, which knows its size."""

    def __post_init__(self) -> None:
        if self.pixel_format not in supported_np_pix_fmts:
            raise VideoError(
                f"raw video cannot be '{self.pixel_format}'; "
                "use rgb24, bgr24, yuv420p, nv12, yuv420p10le or the like"
            )


def open_raw(
    pipe: BinaryIO, raw: RawFormat, rate: Fraction, span: Span, stop: threading.Event
) -> Clip:
    """The frames on a pipe, as a clip of `rate` frames a second; `raw` must say their size.

    It ends when the pipe does, or when `stop` is set. Raises `VideoError` without a size, and what
    `Clip` raises.
    """
    if raw.width < 1 or raw.height < 1:
        raise VideoError("raw video on a pipe does not say how large it is; give --size WxH")
    options = {
        "pixel_format": raw.pixel_format,
        "video_size": f"{raw.width}x{raw.height}",
        "framerate": str(rate),
    }
    return Clip(_Pipe(pipe, stop), span, "rawvideo", options)  # type: ignore[arg-type]


class RawSink:
    """Writes frames with `facts` to a pipe, as they come."""

    done = 0
    warnings = ()

    def __init__(self, pipe: BinaryIO, pixel_format: str, facts: StreamFacts) -> None:
        RawFormat(pixel_format)
        self._pipe = pipe
        self._from_rgb = FromRgb(facts.colour, pixel_format)

    def write(self, frame: Frame) -> None:
        """Raises `BrokenPipeError` if the reader has gone."""
        self._pipe.write(self._from_rgb(frame.rgb).to_ndarray().tobytes())

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - a pipe has no whole
        """Write out what is buffered."""
        self._pipe.flush()
        return ()

    def abort(self) -> None:
        """What was written stays written."""


class _Pipe:
    """A readable pipe that ends early when told to stop, even while nothing comes."""

    name = "pipe"

    def __init__(self, pipe: BinaryIO, stop: threading.Event) -> None:
        self._descriptor = pipe.fileno()
        self._stop = stop

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        while not select.select([self._descriptor], [], [], _LOOK_SECONDS)[0]:
            if self._stop.is_set():
                return b""
        return os.read(self._descriptor, size)
