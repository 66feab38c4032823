"""Coded video and the streams beside it in one container: what the join and its trial share."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import av

from ikc_deploy.video.clocks import Repair, RunningClock
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.opening import open_output
from ikc_deploy.video.tracks import Excerpt, Track, TrackLane, add_lane, fresh_tags
from ikc_deploy.video.write_errors import FAILURES

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

_FASTEST_CLOCK: Final = 2**31 - 1


class TrackError(Exception):
    """A stream beside the video, or tags and chapters, could not be written; its cause says why."""

    def __init__(self, index: int | None) -> None:
        super().__init__(index)
        self.index = index
        """Of the stream in the source; None if nobody knows which it was."""


@dataclass(frozen=True)
class Beside:
    """What goes into an output along with the video."""

    source: InputContainer
    video: VideoStream
    """The source's."""
    tracks: Sequence[Track]
    excerpt: Excerpt
    jumps: Sequence[Fraction] = ()
    """Of the source's clock, as `RunningClock` gives them."""
    tags: bool = True
    """Take tags and chapters along."""


class MuxedOutput:
    """A container with a video stream like `coded`, tagged by `facts`, and what goes beside it.

    Its header is written. Raises `TrackError` for what is `beside` the video, else what PyAV
    raises.
    """

    def __init__(
        self,
        target: Path | BinaryIO,
        container: str,
        coded: VideoStream,
        facts: StreamFacts,
        beside: Beside | None = None,
    ) -> None:
        self._beside = beside
        self._file = open_output(target, container, _options(container, facts, beside))
        self._closed = False
        try:
            self._video = _add_video(self._file, coded, facts)
            self._lanes = {} if beside is None else self._add(beside)
            self._start()
        except BaseException:
            self.abandon()
            raise
        self._repair = Repair(self._file, self._video)

    def write(self, video: Iterator[Packet[Any]]) -> None:
        """Write the packets of the video, and all others in the order of time; close the file."""
        try:
            for packet in heapq.merge(self._repaired(video), self._others(), key=_seconds):
                self._mux(packet)
        except BaseException:
            self.abandon()
            raise
        self.close()

    def put(self, video: Iterator[Packet[Any]]) -> None:
        """Write packets of the video."""
        for packet in self._repaired(video):
            self._mux(packet)

    def feed(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Write what comes of one packet of the source, and return it."""
        index = packet.stream.index
        made = list(self._of(index, self._lanes[index].packets(packet)))
        for each in made:
            self._mux(each)
        return made

    def rest(self) -> None:
        """Write what is left when the source has no more."""
        for index, lane in self._lanes.items():
            for packet in self._of(index, lane.rest()):
                self._mux(packet)

    def again(self, packets: Sequence[Packet[Any]]) -> None:
        """Write packets that an output with the same single track has written before."""
        (lane,) = self._lanes.values()
        for packet in packets:
            packet.stream = lane.stream
            self._mux(packet)

    def close(self) -> None:
        """Make the file whole."""
        self._closed = True
        self._blamed(self._file.close)

    def abandon(self) -> None:
        """Close the file, which need not be whole."""
        if not self._closed:
            self._closed = True
            with suppress(*FAILURES):
                self._file.close()

    def _add(self, beside: Beside) -> dict[int, TrackLane]:
        lanes = {}
        for track in beside.tracks:
            try:
                stream = beside.source.streams[track.index]
                lanes[track.index] = add_lane(self._file, stream, track, beside.excerpt)
            except FAILURES as error:
                raise TrackError(track.index) from error
        if beside.tags:
            self._video.metadata.update(fresh_tags(beside.video.metadata))
            self._file.metadata.update(fresh_tags(beside.source.metadata))
            chapters = _chapters(beside.source, beside.excerpt)
            self._blamed(lambda: self._file.set_chapters(list(chapters)))
        self._video.disposition = beside.video.disposition
        return lanes

    def _start(self) -> None:
        self._blamed(self._file.start_encoding)

    def _blamed(self, do: Callable[[], None]) -> None:
        """Do what concerns all streams; with streams beside the video, they may be why it fails."""
        try:
            do()
        except FAILURES as error:
            if self._beside is None:
                raise
            raise TrackError(None) from error

    def _mux(self, packet: Packet[Any]) -> None:
        index = packet.stream_index
        try:
            self._file.mux(packet)
        except FAILURES as error:
            guilty = [source for source, lane in self._lanes.items() if lane.stream.index == index]
            if guilty:
                raise TrackError(guilty[0]) from error
            if self._beside is None:
                raise
            # What another stream left waiting is written then, too.
            raise TrackError(None) from error

    def _repaired(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        for packet in packets:
            packet.stream = self._video
            self._repair(packet)
            yield packet

    def _others(self) -> Iterator[Packet[Any]]:
        """The packets beside the video; a stream that cannot be read on ends there."""
        if self._beside is None:
            return
        for packet in read_beside(self._beside):
            lane = self._lanes[packet.stream.index]
            yield from self._of(packet.stream.index, lane.packets(packet))
        for index, lane in self._lanes.items():
            yield from self._of(index, lane.rest())

    def _of(self, index: int, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        try:
            yield from packets
        except FAILURES as error:
            raise TrackError(index) from error


def read_beside(beside: Beside) -> Iterator[Packet[Any]]:
    """The packets of the tracks, on a clock that runs on, up to where the file is cut short."""
    wanted = [
        stream
        for stream in (beside.source.streams[track.index] for track in beside.tracks)
        if stream.type != "attachment"
    ]
    if not wanted:
        return
    clock = RunningClock(beside.jumps)
    packets = beside.source.demux(wanted)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return  # Whoever decoded the clip has warned of damage.
        clock(packet)
        yield packet


def _options(container: str, facts: StreamFacts, beside: Beside | None) -> dict[str, str]:
    if container not in ("mp4", "mov"):
        return {}
    # A stream that begins late is delayed in units of the file's clock: milliseconds by default,
    # which moves its time stamps.
    ticks = [facts.time_base.denominator]
    if beside is not None:
        sound = [beside.source.streams[track.index] for track in beside.tracks]
        ticks += [
            cast(Fraction, stream.time_base).denominator
            for stream in sound
            if stream.type == "audio"
        ]
    clock = math.lcm(*ticks)
    return {"movie_timescale": str(clock if clock <= _FASTEST_CLOCK else ticks[0])}


def _add_video(output: OutputContainer, coded: VideoStream, facts: StreamFacts) -> VideoStream:
    stream = output.add_stream_from_template(coded, opaque=True)
    # Pieces carry the tags in the bitstream, where their codec has a place; files have their own.
    facts.tag(stream.codec_context)
    stream.codec_context.framerate = facts.rate
    stream.time_base = facts.time_base
    stream.set_display_matrix(facts.display_matrix)
    if coded.codec_context.name == "hevc" and output.format.name in ("mp4", "mov"):
        # FFmpeg's default, hev1, is not played by Apple's.
        stream.codec_context.codec_tag = "hvc1"
    return stream


def _chapters(source: InputContainer, excerpt: Excerpt) -> Iterator[Any]:
    for chapter in source.chapters():
        tick = chapter["time_base"] or Fraction(1, 1000)
        shift = round(excerpt.origin / tick)
        start, end = max(0, chapter["start"] - shift), chapter["end"] - shift
        if end > start and (excerpt.end is None or chapter["start"] * tick < excerpt.end):
            yield {**chapter, "start": start, "end": end}


def _seconds(packet: Packet[Any]) -> float:
    return float((packet.dts or 0) * packet.time_base)


def codec_name(stream: Stream) -> str:
    """FFmpeg's name of a stream's codec, whoever decodes it; else the stream's own."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return str(getattr(stream, "name", None) or "unknown")
