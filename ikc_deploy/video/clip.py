"""A clip as a source of frames: files, URLs and raw video, by PyAV.

Everything that decodes is used: a packet that does not is skipped and counted, and what is wrong
with the clip is a warning at the end, not an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import av

from ikc_deploy.errors import NoVideoError, UnreadableClipError, VideoError
from ikc_deploy.video.clocks import RunningClock, can_jump
from ikc_deploy.video.colour import UNSPECIFIED, ToRgb, infer_colour, sample_bits, subsampling
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.opening import open_input
from ikc_deploy.video.sidedata import display_matrix, side_data_names, turn_only

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_DEFAULT_RATE: Final = Fraction(25)

_SHORT: Final = Fraction(1, 10)
"""Seconds that may be missing at the end, where nobody says how long the last frame is shown."""


@dataclass(frozen=True)
class Span:
    """The part of a clip that is wanted, in seconds of the clip."""

    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    """None for all that follows."""

    def __post_init__(self) -> None:
        if self.start < 0 or (self.duration is not None and self.duration <= 0):
            raise VideoError("a clip starts at 0 seconds or later and lasts more than 0 seconds")


@dataclass(frozen=True)
class ClipRange:
    """A part of a clip that begins with a key frame, in ticks of its stream (`video.pieces`)."""

    begin: int | None = None
    """When the first frame is shown; None for the clip's first."""
    end: int | None = None
    """When the first frame after it is shown; None for all that follows."""
    seek: int | None = None
    """When the first frame is decoded."""
    packets: int | None = None
    """Coded frames in it; None if nobody counted."""


class Clip:
    """The first video stream of a clip that is no cover picture, as a source of frames.

    `source` is a path, or a readable binary stream with `options` and `container` for FFmpeg's
    demuxer. With a `clip_range`, its frames are those of that part, as they are in the whole clip.
    Raises `UnreadableClipError` or `NoVideoError`; close it after use.
    """

    def __init__(
        self,
        source: Path | BinaryIO,
        span: Span | None = None,
        container: str | None = None,
        options: Mapping[str, str] | None = None,
        clip_range: ClipRange | None = None,
    ) -> None:
        self.name = str(source) if isinstance(source, Path) else "the pipe"
        self.span = span or Span()
        self.warnings: list[str] = []
        self._corrupt = 0
        self.container = open_input(source, self.name, container, options)
        try:
            self.stream = video_stream(self.container, self.name)
            self._decoder = Decoder(self.container, self.stream)
            self._from, self._until = self._bounds(clip_range or ClipRange())
            self._sought = isinstance(source, Path) and self._seek(clip_range or ClipRange())
            self._kept = self._keep()
            first = next(self._kept, None)
            if first is None:
                raise UnreadableClipError(self._nothing())
        except BaseException:
            self.container.close()
            raise
        self._first = first
        self.first_pts = first[1]
        """When the first frame is shown in the clip, in ticks, before `origin` is subtracted."""
        self.facts = stream_facts(self.stream, first[0], self._expected())
        self.origin = first[1] if self.span.start > 0 else self._start()
        """What is subtracted from time stamps so that the output begins at 0, in ticks."""
        self.side_data = side_data_names(first[0])
        """PyAV's names of what comes with the first frame."""
        self.warnings += _peculiarities(self.stream, first[0], self._decoder.alpha)

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """The frames of the span in order, without the first `skip`; can be asked for once.

        Raises `VideoError` if the picture changes its size on the way.
        """
        to_rgb = ToRgb(self.facts.colour)
        for number, (frame, pts) in enumerate(chain([self._first], self._kept)):
            if number >= skip:
                check_size(frame, self.facts, self.name)
                yield Frame(to_rgb(frame), pts - self.origin)

    def _keep(self) -> Iterator[tuple[VideoFrame, int]]:
        """Decoded frames of the span with time stamps that rise."""
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
            # Equal or falling ones are broken: no container takes them.
            last = time if last is None else max(time, last + 1)
            self._corrupt += frame.is_corrupt
            yield frame, last
        else:
            self._check_end(last)
        damaged = self._decoder.damaged + self._corrupt
        if damaged:
            self.warnings.append(
                f"'{self.name}' is damaged ({damaged} packets or frames); "
                "what could be decoded is used"
            )

    def _start(self) -> int:
        """When the clip begins, in ticks: the earliest of its streams, so that they stay together.

        Broadcasts and streams off the net are cut out of a clock that has run for hours.
        """
        begin = self.container.start_time
        times = [
            stream.start_time * cast(Fraction, stream.time_base)
            for stream in (*self.container.streams.video, *self.container.streams.audio)
            if stream.start_time is not None
        ]
        if begin is None or not times:
            return 0
        # FFmpeg knows which streams to trust, and counts microseconds; the stream knows exactly.
        exact = min(times, key=lambda time: abs(time - Fraction(begin, av.time_base)))
        # Sound may begin a little before 0, with what its decoder throws away.
        late = exact > 0 or (self.stream.start_time or 0) < 0
        return math.floor(exact / _time_base(self.stream)) if late else 0

    def _step(self) -> int:
        rate = self.stream.average_rate or self.stream.guessed_rate or _DEFAULT_RATE
        return max(1, round(1 / (rate * _time_base(self.stream))))

    def _bounds(self, clip_range: ClipRange) -> tuple[int | None, int | None]:
        """When the first frame that is wanted, and the first that is not any more, are shown."""
        begin, tick = self.stream.start_time or 0, _time_base(self.stream)
        start, until = clip_range.begin, clip_range.end
        if self.span.start > 0:
            start = begin + math.ceil(self.span.start / tick)
        if self.span.duration is not None:
            until = begin + math.ceil((self.span.start + self.span.duration) / tick)
        return start, until

    def _seek(self, clip_range: ClipRange) -> bool:
        """Go to the last key frame before the first frame that is wanted; False if still at 0."""
        if self._from is None:
            return False
        try:
            self.container.seek(
                self._from if clip_range.seek is None else clip_range.seek, stream=self.stream
            )
        except av.FFmpegError:
            # All is decoded up to there.
            return False
        return True

    def _decoded(self) -> Iterator[VideoFrame]:
        """All frames from the first that is wanted, or earlier, to the end of the clip."""
        frames = self._decoder.frames()
        if not self._sought or self._from is None:
            return frames
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts <= self._from:
            return chain([first], frames)
        # Some containers seek too far: then all is decoded.
        self.container.seek(self.stream.start_time or 0, stream=self.stream)
        self._decoder = Decoder(self.container, self.stream)
        return self._decoder.frames()

    def _expected(self) -> int | None:
        """Frames of the span, if the container says how many the clip has."""
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
        """Warn if the frames ended before the clip should."""
        seconds, tick = declared_seconds(self.stream), _time_base(self.stream)
        if seconds is None or last is None or self._decoder.jumps:
            return
        end = (last + self._step() - (self.stream.start_time or 0)) * tick
        if seconds - end > max(2 * self._step() * tick, _SHORT):
            self.warnings.append(
                f"'{self.name}' should last {float(seconds):.2f} s, but its frames end at "
                f"{float(end):.2f} s: it seems to be cut short"
            )


class Decoder:
    """Decodes a stream in a container to its end, past what is damaged."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.damaged = 0
        """Packets that could not be decoded so far."""
        self.alpha = False
        """Transparency was seen that FFmpeg's decoder leaves out."""
        self._clock = RunningClock() if can_jump(container) else None
        self._container = container
        self._stream = stream
        # Threads by frame hold frames back, which a camera must not, and report damage or not by
        # who is first, while a resumed run counts on the same frames as before.
        stream.thread_type = "SLICE"
        self._frames = self._decode()

    @property
    def jumps(self) -> bool:
        """True if the clock of the packets so far was set anew on the way."""
        return self._clock is not None and bool(self._clock.jumps)

    def frames(self) -> Iterator[VideoFrame]:
        """The frames that were not yet asked for."""
        return self._frames

    def _decode(self) -> Iterator[VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self.damaged += 1
                return
            if self._clock is not None:
                self._clock(packet)
            self.alpha = self.alpha or _has_alpha_layer(packet)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            yield from frames


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The first stream of moving pictures; raises `NoVideoError` if there is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise NoVideoError(f"'{name}' has no video stream, only {kinds}; give a clip that has one")


def stream_facts(stream: VideoStream, first: VideoFrame, frames: int | None = None) -> StreamFacts:
    """What holds for all frames, from the stream and its first frame."""
    name = first.format.name
    coded = stream.codec_context
    return StreamFacts(
        first.width,
        first.height,
        _time_base(stream),
        stream.average_rate or stream.guessed_rate or _DEFAULT_RATE,
        infer_colour(
            first.width,
            first.height,
            name,
            _either(first.colorspace, coded.colorspace),
            first.color_range or coded.color_range,
            _either(first.color_primaries, coded.color_primaries),
            _either(first.color_trc, coded.color_trc),
        ),
        sample_bits(name),
        subsampling(name),
        stream.sample_aspect_ratio or Fraction(1),
        # FFmpeg has put what it stretches into the shape of pixels.
        turn_only(display_matrix(first)),
        frames,
    )


def check_size(frame: VideoFrame, facts: StreamFacts, name: str) -> None:
    """Raise `VideoError` unless `frame` is as large as the first one was."""
    if (frame.width, frame.height) != (facts.width, facts.height):
        raise VideoError(
            f"the picture of '{name}' changes from {facts.width}x{facts.height} to "
            f"{frame.width}x{frame.height}; cut the clip there, with --duration and --start"
        )


def declared_seconds(stream: VideoStream) -> Fraction | None:
    """How long the container says that a stream lasts; None if it says nothing of this stream."""
    if stream.duration is not None:
        return stream.duration * _time_base(stream)
    # Matroska keeps it as a tag: 00:00:04.000000000
    clock = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if clock is None:
        return None
    end = 3600 * int(clock[1]) + 60 * int(clock[2]) + Fraction(clock[3])
    # Some writers count from 0, some from the first frame.
    begin = (stream.start_time or 0) * _time_base(stream)
    return end - begin if 0 < begin < end else end


def find_jumps(path: Path) -> tuple[Fraction, ...]:
    """How the clock of a clip's video jumps, as `RunningClock` gives it; reads the file once.

    Raises `UnreadableClipError` or `NoVideoError`.
    """
    with closing(open_input(path, str(path))) as container:
        if not can_jump(container):
            return ()
        clock, packets = RunningClock(), container.demux(video_stream(container, str(path)))
        with suppress(av.FFmpegError):
            for packet in packets:
                clock(packet)
        return tuple(clock.jumps)


_LOST: Final = {
    "SPHERICAL": "the clip is a 360-degree (spherical) video; the output does not say so, and "
    "players show it flat",
    "A53_CC": "the clip has closed captions inside its pictures, which are left out",
    "MASTERING_DISPLAY_METADATA": "the clip's HDR metadata (mastering display) is left out",
    "CONTENT_LIGHT_LEVEL": "the clip's HDR metadata (light levels) is left out",
    "DOVI_METADATA": "the clip's Dolby Vision metadata is left out",
    "DYNAMIC_HDR_PLUS": "the clip's HDR10+ metadata is left out",
}
"""Warnings for side data that is not written."""


def _peculiarities(stream: VideoStream, frame: VideoFrame, alpha: bool) -> Iterator[str]:
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    if frame.interlaced_frame:
        yield "the clip is interlaced: its fields are upscaled as one picture; deinterlace first"
    if (
        alpha
        or tags.get("alpha_mode") == "1"
        or any(component.is_alpha for component in frame.format.components)
    ):
        yield "the clip has transparency, which is left out"
    if turn_only(display_matrix(frame)) != display_matrix(frame):
        yield (
            "the clip's display matrix scales or stretches the picture; of that, only the shape of "
            "the pixels is kept"
        )
    yield from (_LOST[name] for name in sorted(side_data_names(frame) & _LOST.keys()))


def _has_alpha_layer(packet: Packet[VideoStream]) -> bool:
    """True if a packet of VP8 or VP9 has a second picture for alpha beside it."""
    extra = packet.get_sidedata("matroska_block_additional")
    # The kind comes first: 1 is alpha.
    return bool(extra) and bytes(extra)[:8] == (1).to_bytes(8, "big")


def _either(first: int, second: int) -> int:
    return second if first == UNSPECIFIED else first


def _time_base(stream: VideoStream) -> Fraction:
    return cast(Fraction, stream.time_base)
