"""A clip as a source of frames: a file, or raw video on a pipe, read by PyAV.

All packets that can be decoded are used. Others are skipped and counted, and reported as a warning
at the end, not as an error.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import av

from ikc_deploy.errors import UnreadableClipError, VideoError
from ikc_deploy.imaging.resize import resized
from ikc_deploy.video.colour import ToRgb
from ikc_deploy.video.decoder import Decoder
from ikc_deploy.video.deinterlacing import DONE
from ikc_deploy.video.display_times import has_decoding_times_only, reorders
from ikc_deploy.video.interfaces import Frame
from ikc_deploy.video.names import Deinterlace
from ikc_deploy.video.opening import open_input
from ikc_deploy.video.sidedata import side_data_names
from ikc_deploy.video.source_facts import (
    check_size,
    declared_seconds,
    frame_rate,
    lost_properties,
    stream_facts,
    time_base,
    video_stream,
)

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


_SHORT: Final = Fraction(1, 10)
"""Seconds that may be missing at the end, because the last frame's duration may be unknown."""


@dataclass(frozen=True)
class Span:
    """The part of a clip to upscale, in seconds of the clip.

    Raises:
        VideoError: `start` is negative, or `duration` is not above 0.
    """

    start: Fraction = Fraction(0)
    """Start in seconds, 0 or more."""
    duration: Fraction | None = None
    """Duration in seconds; None for the rest of the clip."""

    def __post_init__(self) -> None:
        """Require a start of at least 0 seconds and a positive duration."""
        if self.start < 0 or (self.duration is not None and self.duration <= 0):
            raise VideoError(
                "a clip starts at 0 seconds or later and lasts more than 0 seconds, "
                f"got start {_seconds(self.start)} and duration {_seconds(self.duration)}"
            )


def _seconds(time: Fraction | None) -> str:
    return "None" if time is None else f"{float(time):g}"


@dataclass(frozen=True)
class ClipRange:
    """A part of a clip that begins with a key frame, in ticks of its stream (`split_points`)."""

    begin: int | None = None
    """Presentation time of the first frame; None for the first frame of the clip."""
    end: int | None = None
    """Presentation time of the first frame after the range; None for the rest of the clip."""
    seek: int | None = None
    """Decoding time of the first frame."""
    packets: int | None = None
    """Number of coded frames; None if it is not known."""


class Clip:
    """The first video stream of a clip that is not a cover image, as a source of frames.

    Close it after use.

    Args:
        source: Path of the clip, or a readable binary stream.
        span: The part to upscale; None for the whole clip.
        container: FFmpeg's name of the demuxer; None to detect it.
        options: Options of the demuxer.
        clip_range: A range from `split_ranges`; its frames are identical to those of the whole
            clip. None for the whole span.
        deinterlace: Which frames are deinterlaced.

    Raises:
        UnreadableClipError: The clip cannot be read, or no frame of the span can be decoded.
        NoVideoError: The clip has no video stream.
    """

    def __init__(
        self,
        source: Path | BinaryIO,
        span: Span | None = None,
        container: str | None = None,
        options: Mapping[str, str] | None = None,
        clip_range: ClipRange | None = None,
        deinterlace: Deinterlace = "auto",
    ) -> None:
        self.name = str(source) if isinstance(source, Path) else "the pipe"
        self.span = span or Span()
        self.warnings: list[str] = []
        self._corrupt = 0
        self._deinterlace: Deinterlace = deinterlace
        self._is_file = isinstance(source, Path)
        self._is_range = clip_range is not None
        self._open = partial(open_input, source, self.name, container, options)
        self.container = self._open()
        try:
            self.stream = video_stream(self.container, self.name)
            self._decoder = Decoder(self.container, self.stream, deinterlace)
            self._from, self._until = self._bounds(clip_range or ClipRange())
            self._sought = self._is_file and self._seek(clip_range or ClipRange())
            self._kept = self._keep()
            first = next(self._kept, None)
            if first is None:
                raise UnreadableClipError(self._nothing())
        except BaseException:
            self.container.close()
            raise
        self._first = first
        self.first_pts = first[1]
        """Presentation time of the first frame in ticks, before `origin` is subtracted."""
        self.facts = stream_facts(self.stream, first[0], self._expected())
        self.origin = first[1] if self.span.start > 0 else self._start()
        """Offset in ticks that is subtracted from time stamps so that the output begins at 0."""
        self.side_data = side_data_names(first[0])
        """PyAV's names of the side data of the first frame."""
        self.warnings += lost_properties(self.stream, first[0], self._decoder.alpha)
        self._report_deinterlacing()

    @property
    def deinterlaced(self) -> bool:
        """Whether frames so far were deinterlaced, so that a frame depends on its neighbours."""
        return self._decoder.deinterlaced

    @property
    def has_guessed_times(self) -> bool:
        """Whether presentation times follow from the order of all frames before."""
        return has_decoding_times_only(self.container) and reorders(self.stream)

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Yield the frames of the span in order, without the first `skip`; can be called once.

        Frames of another size than the first one are resized to it, as FFmpeg does, with a warning.

        Raises:
            VideoError: The size of the frames changes within a range of the clip.
        """
        to_rgb = ToRgb(self.facts.colour)
        height, width = self.facts.height, self.facts.width
        other_sizes: set[tuple[int, int]] = set()
        for number, (frame, pts) in enumerate(chain([self._first], self._kept)):
            if self._is_range:
                check_size(frame, self.facts, self.name)
            size = frame.width, frame.height
            if size != (width, height) and size not in other_sizes:
                other_sizes.add(size)
                self._warn_of_size(size, pts)
            if number >= skip:
                yield Frame(resized(to_rgb(frame), height, width), pts - self.origin)

    def _warn_of_size(self, size: tuple[int, int], pts: int) -> None:
        seconds = float((pts - self._first_time()) * time_base(self.stream))
        self.warnings.append(
            f"the frame size of '{self.name}' changes from {self.facts.width}x{self.facts.height} "
            f"to {size[0]}x{size[1]} at {seconds:.2f} s; these frames are resized to the first size"
        )

    def _keep(self) -> Iterator[tuple[VideoFrame, int]]:
        """Yield the decoded frames of the span with increasing time stamps."""
        time = last = None
        for frame in self._decoded():
            # Raw streams have no time stamps.
            time = (
                frame.pts if frame.pts is not None else 0 if time is None else time + self._step()
            )
            if self._from is not None and time < self._from:
                continue
            if self._until is not None and time >= self._until:
                break
            # Equal or decreasing time stamps are invalid: no container accepts them.
            last = time if last is None else max(time, last + 1)
            self._corrupt += frame.is_corrupt
            yield frame, last
        else:
            self._check_end(last)
        self._report_deinterlacing()
        damaged = self._decoder.damaged + self._corrupt
        if damaged:
            self.warnings.append(
                f"'{self.name}' is damaged ({damaged} packets or frames); "
                "what could be decoded is used"
            )

    def _report_deinterlacing(self) -> None:
        if self.deinterlaced and DONE not in self.warnings:
            self.warnings.append(DONE)

    def _start(self) -> int:
        """Return the start of the earliest stream of the clip in ticks, to keep streams in sync.

        The clocks of broadcasts and network streams do not start at 0.
        """
        begin = None if has_decoding_times_only(self.container) else self.container.start_time
        times = [
            stream.start_time * cast(Fraction, stream.time_base)
            for stream in (*self.container.streams.video, *self.container.streams.audio)
            if stream.start_time is not None
        ]
        if begin is None or not times:
            return 0
        # FFmpeg knows which streams to trust, in microseconds; the stream has the exact time.
        exact = min(times, key=lambda time: abs(time - Fraction(begin, av.time_base)))
        # Audio may begin a little before 0, with samples that its decoder discards.
        late = exact > 0 or (self.stream.start_time or 0) < 0
        return math.floor(exact / time_base(self.stream)) if late else 0

    def _first_time(self) -> int:
        """Return the time stamp at which the video begins, in ticks."""
        return 0 if has_decoding_times_only(self.container) else self.stream.start_time or 0

    def _step(self) -> int:
        return max(1, round(1 / (frame_rate(self.stream) * time_base(self.stream))))

    def _bounds(self, clip_range: ClipRange) -> tuple[int | None, int | None]:
        """Return the presentation times of the first frame and of the first frame after the end."""
        begin, tick = self._first_time(), time_base(self.stream)
        start, until = clip_range.begin, clip_range.end
        if self.span.start > 0:
            start = begin + math.ceil(self.span.start / tick)
        if self.span.duration is not None:
            until = begin + math.ceil((self.span.start + self.span.duration) / tick)
        return start, until

    def _seek(self, clip_range: ClipRange) -> bool:
        """Seek to the last key frame before the first frame to yield; return False if at 0.

        A key frame without a presentation time is only found from the start.
        """
        if self._from is None or self.has_guessed_times:
            return False
        try:
            self.container.seek(
                self._from if clip_range.seek is None else clip_range.seek, stream=self.stream
            )
        except av.FFmpegError:
            # Everything before the first frame is decoded and skipped.
            return False
        return True

    def _decoded(self) -> Iterator[VideoFrame]:
        """Yield all frames from the first one to yield, or earlier, to the end of the clip."""
        frames = self._decoder.frames()
        if not self._sought or self._from is None:
            return frames
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts <= self._from:
            return chain([first], frames)
        # Some containers seek too far, also to their start: then decode a newly opened one.
        self.container.close()
        self.container = self._open()
        self.stream = video_stream(self.container, self.name)
        self._decoder = Decoder(self.container, self.stream, self._deinterlace)
        return self._decoder.frames()

    def _expected(self) -> int | None:
        """Return the number of frames of the span, as far as the container specifies it."""
        if not self._is_file:
            return None  # FFmpeg's guess for a pipe is wrong.
        if self.span == Span() and self.stream.frames:
            return self.stream.frames
        rate, seconds = self.stream.average_rate, declared_seconds(self.stream)
        if not rate or seconds is None:
            return None
        left = seconds - self.span.start
        wanted = left if self.span.duration is None else min(left, self.span.duration)
        return max(1, round(wanted * rate))

    def _nothing(self) -> str:
        if self.span.start == 0 or self._decoder.damaged:
            return f"no frame of '{self.name}' can be decoded"
        return f"'{self.name}' has no frames at {float(self.span.start):g} s or later"

    def _check_end(self, last: int | None) -> None:
        """Add a warning if the frames ended before the declared end of the clip."""
        seconds, tick = declared_seconds(self.stream), time_base(self.stream)
        if not self._is_file or seconds is None or last is None or self._decoder.jumps:
            return
        shown = max(last, self._decoder.repeated or last)
        end = (shown + self._step() - self._first_time()) * tick
        if seconds - end > max(2 * self._step() * tick, _SHORT):
            self.warnings.append(
                f"'{self.name}' should last {float(seconds):.2f} s, but its frames end at "
                f"{float(end):.2f} s: it seems to be cut short"
            )
