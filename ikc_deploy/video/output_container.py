"""An output container with coded video and what it takes from the source clip."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from ikc_deploy.video.clocks import TimestampRepair, Trim
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.opening import open_output
from ikc_deploy.video.passthrough import OpenPassthrough
from ikc_deploy.video.tracks import TrackConverter, add_track, copied_tags
from ikc_deploy.video.write_errors import FAILURES

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

_FASTEST_CLOCK: Final = 2**31 - 1


class TrackError(Exception):
    """A failure to write tags, chapters or a stream other than the video; see its cause.

    Args:
        index: Index of the stream in the source; None if it is not known.
    """

    def __init__(self, index: int | None) -> None:
        super().__init__(index)
        self.index = index
        """Index of the stream in the source; None if it is not known."""


class MuxedOutput:
    """An output container with a coded video stream and other streams; its header is written.

    Args:
        target: A path, or a writable binary stream.
        container: FFmpeg's name of the container.
        coded: A coded video stream, whose parameters are copied.
        facts: Properties of the video, for tags.
        passthrough: Other streams, tags and chapters; None for none.

    Raises:
        TrackError: Another stream, tags or chapters cannot be written.
        Exception: As raised by PyAV, if the container or the video cannot be written.
    """

    def __init__(
        self,
        target: Path | BinaryIO,
        container: str,
        coded: VideoStream,
        facts: StreamFacts,
        passthrough: OpenPassthrough | None = None,
    ) -> None:
        self._passthrough = passthrough
        self._file = open_output(target, container, _options(container, facts, passthrough))
        self._closed = False
        try:
            self._video = _add_video(self._file, coded, facts)
            self._tracks = {} if passthrough is None else self._add(passthrough)
            self._attributed(self._file.start_encoding)
        except BaseException:
            self.abandon()
            raise
        self._repair = TimestampRepair(self._file, self._video)

    def write(self, video: Iterator[Packet[Any]]) -> None:
        """Write the packets of the video and of all other streams in order of time; close."""
        try:
            for packet in heapq.merge(self._repaired(video), self._others(), key=_seconds):
                self._mux(packet)
        except BaseException:
            self.abandon()
            raise
        self.close()

    def put_video(self, video: Iterator[Packet[Any]]) -> None:
        """Write packets of the video."""
        for packet in self._repaired(video):
            self._mux(packet)

    def convert(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Write what one packet of the source is converted to, and return it."""
        index = packet.stream.index
        converted = list(self._attributed_to(index, self._tracks[index].packets(packet)))
        for each in converted:
            self._mux(each)
        return converted

    def flush(self) -> None:
        """Write the remaining packets after the last packet of the source."""
        for index, track in self._tracks.items():
            for packet in self._attributed_to(index, track.flush()):
                self._mux(packet)

    def put_converted(self, packets: Sequence[Packet[Any]]) -> None:
        """Write packets that `convert` of an output with the same single track has returned."""
        (track,) = self._tracks.values()
        for packet in packets:
            packet.stream = track.stream
            self._mux(packet)

    def close(self) -> None:
        """Write the trailer and close the file."""
        self._closed = True
        self._attributed(self._file.close)

    def abandon(self) -> None:
        """Close the file and ignore errors; it may be incomplete."""
        if not self._closed:
            self._closed = True
            with suppress(*FAILURES):
                self._file.close()

    def _add(self, passthrough: OpenPassthrough) -> dict[int, TrackConverter]:
        taken, source, video = passthrough.taken, passthrough.source, passthrough.video
        added = {}
        for track in taken.tracks:
            try:
                stream = source.streams[track.index]
                added[track.index] = add_track(self._file, stream, track, taken.trim)
            except FAILURES as error:
                raise TrackError(track.index) from error
        if taken.tags:
            self._video.metadata.update(copied_tags(video.metadata, taken.trim))
            self._file.metadata.update(copied_tags(source.metadata, taken.trim))
            chapters = _chapters(source, taken.trim)
            self._attributed(lambda: self._file.set_chapters(list(chapters)))
        self._video.disposition = video.disposition
        return added

    def _attributed(self, do: Callable[[], None]) -> None:
        """Call `do`; attribute its failure to the other streams, if there are any."""
        try:
            do()
        except FAILURES as error:
            if self._passthrough is None:
                raise
            raise TrackError(None) from error

    def _mux(self, packet: Packet[Any]) -> None:
        index = packet.stream_index
        try:
            self._file.mux(packet)
        except FAILURES as error:
            failed = [key for key, track in self._tracks.items() if track.stream.index == index]
            if failed:
                raise TrackError(failed[0]) from error
            if self._passthrough is None:
                raise
            # The muxer also writes waiting packets of other streams then.
            raise TrackError(None) from error

    def _repaired(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        for packet in packets:
            packet.stream = self._video
            self._repair(packet)
            yield packet

    def _others(self) -> Iterator[Packet[Any]]:
        """Yield the packets of the other streams, up to where the source cannot be read."""
        if self._passthrough is None:
            return
        for packet in self._passthrough.packets():
            track = self._tracks[packet.stream.index]
            yield from self._attributed_to(packet.stream.index, track.packets(packet))
        for index, track in self._tracks.items():
            yield from self._attributed_to(index, track.flush())

    def _attributed_to(self, index: int, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        try:
            yield from packets
        except FAILURES as error:
            raise TrackError(index) from error


def _options(
    container: str, facts: StreamFacts, passthrough: OpenPassthrough | None
) -> dict[str, str]:
    if container not in ("mp4", "mov"):
        return {}
    # The delay of a stream that starts late is stored in units of the file's time scale, which is
    # milliseconds by default and would shift its time stamps.
    ticks = [facts.time_base.denominator]
    if passthrough is not None:
        streams = [passthrough.source.streams[track.index] for track in passthrough.taken.tracks]
        ticks += [
            cast(Fraction, stream.time_base).denominator
            for stream in streams
            if stream.type == "audio"
        ]
    clock = math.lcm(*ticks)
    return {"movie_timescale": str(clock if clock <= _FASTEST_CLOCK else ticks[0])}


def _add_video(output: OutputContainer, coded: VideoStream, facts: StreamFacts) -> VideoStream:
    stream = output.add_stream_from_template(coded, opaque=True)
    # Chunks have the tags in the bitstream, if their codec supports it; containers have their own.
    facts.tag(stream.codec_context)
    stream.codec_context.framerate = facts.rate
    stream.time_base = facts.time_base
    stream.set_display_matrix(facts.display_matrix)
    if coded.codec_context.name == "hevc" and output.format.name in ("mp4", "mov"):
        # Apple's players do not play FFmpeg's default, hev1.
        stream.codec_context.codec_tag = "hvc1"
    return stream


def _chapters(source: InputContainer, trim: Trim) -> Iterator[Any]:
    for chapter in source.chapters():
        tick = chapter["time_base"] or Fraction(1, 1000)
        shift = round(trim.origin / tick)
        start, end = max(0, chapter["start"] - shift), chapter["end"] - shift
        if end > start and (trim.end is None or chapter["start"] * tick < trim.end):
            yield {**chapter, "start": start, "end": end}


def _seconds(packet: Packet[Any]) -> float:
    return float((packet.dts or 0) * packet.time_base)


def codec_name(stream: Stream) -> str:
    """Return FFmpeg's name of the codec of a stream; the stream's own name if it has no decoder."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return str(getattr(stream, "name", None) or "unknown")
