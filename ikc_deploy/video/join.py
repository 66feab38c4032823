"""Finished pieces and the untouched streams of the source to one file, without coding anything.

Audio, subtitles and attachments are copied packet by packet with their time stamps; metadata,
chapters and stream flags go along. Decoding times of the video are computed anew, because every
piece was coded on its own.
"""

from __future__ import annotations

import heapq
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import av

from ikc_deploy.errors import VideoError
from ikc_deploy.files import atomic_path
from ikc_deploy.video.clip import open_input, video_stream
from ikc_deploy.video.encoders import tag
from ikc_deploy.video.errors import writing
from ikc_deploy.video.frames import StreamFacts
from ikc_deploy.video.names import container_of
from ikc_deploy.video.segments import Segment, open_segment, read_packets

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

_COPIED: Final = ("audio", "subtitle", "attachment")
_FASTEST_CLOCK: Final = 2**31 - 1
# What a container says of itself, and statistics of streams that are no longer in it.
_STALE_TAGS: Final = ("major_brand", "minor_version", "compatible_brands", "encoder", "DURATION")
_STALE_PREFIXES: Final = ("BPS", "NUMBER_OF_", "_STATISTICS_", "DURATION-")


@dataclass(frozen=True)
class Companions:
    """Where the streams beside the video come from."""

    path: Path
    origin: int = 0
    """What was subtracted from the video's time stamps, in ticks of its stream."""
    cut: bool = False
    """Leave out what begins after the last frame."""


def check_companions(source: InputContainer, video: VideoStream, container: str) -> list[str]:
    """Which streams of `source` will be left out of such a container, a sentence for each.

    Raises `VideoError` if audio is among them.
    """
    left_out = []
    for stream in source.streams:
        if stream.index == video.index or _fits(stream, container):
            continue
        name = stream.codec_context.name if stream.codec_context else stream.name or "unknown"
        if stream.type == "audio":
            raise VideoError(f"{container} cannot hold {name} audio; write .mkv or .mov instead")
        why = "" if stream.type not in _COPIED else f", which {container} cannot hold"
        left_out.append(f"stream {stream.index} is left out: {stream.type}, {name}{why}")
    return left_out


def join(
    segments: Sequence[Segment], facts: StreamFacts, target: Path, companions: Companions | None
) -> None:
    """Write `target` from the pieces, whole or not at all; `facts` are the output's.

    Raises `DiskFullError` or `VideoError`.
    """
    with writing(target), atomic_path(target) as temporary, ExitStack() as files:
        source = None
        if companions is not None:
            source = files.enter_context(open_input(companions.path, str(companions.path)))
        output = files.enter_context(_open_output(temporary, container_of(target), facts, source))
        first = files.enter_context(open_segment(segments[0]))
        video = _add_video(output, first.streams.video[0], facts)
        packets = _video_packets(segments, facts, video)
        if companions is not None and source is not None:
            end = _end(segments, facts) if companions.cut else None
            packets = heapq.merge(packets, _copy(source, output, companions, end), key=_seconds)
        for packet in packets:
            output.mux(packet)


def decode_times(pts: Sequence[int]) -> list[int]:
    """Decoding times for frames that are shown at `pts`, given in order of decoding.

    They rise, and none is later than its frame is shown.
    """
    shown = sorted(pts)
    place = {time: index for index, time in enumerate(shown)}
    delay = max((index - place[time] for index, time in enumerate(pts)), default=0)
    lead = shown[delay] - shown[0] if shown else 0
    return [
        shown[index - delay] if index >= delay else shown[index] - lead
        for index in range(len(shown))
    ]


def _open_output(
    path: Path, container: str, facts: StreamFacts, source: InputContainer | None
) -> OutputContainer:
    options = {}
    if container in ("mp4", "mov"):
        # A stream that begins late is delayed in units of the file's clock: milliseconds by
        # default, which moves its time stamps.
        ticks = [facts.time_base.denominator]
        if source is not None:
            ticks += [cast(Fraction, each.time_base).denominator for each in source.streams.audio]
        clock = math.lcm(*ticks)
        options["movie_timescale"] = str(clock if clock <= _FASTEST_CLOCK else ticks[0])
    return av.open(path, "w", format=container, container_options=options)


def _fits(stream: Stream, container: str) -> bool:
    if stream.type == "attachment":
        return container == "matroska"
    if stream.type not in _COPIED:
        return False
    try:
        trial = av.open(io.BytesIO(), "w", format=container)
        trial.add_stream_from_template(stream, opaque=True)
    except ValueError:
        return False
    return True


def _end(segments: Sequence[Segment], facts: StreamFacts) -> Fraction:
    """Seconds at which the last frame is shown, and one frame more."""
    last = max(cast(int, packet.pts) for packet in read_packets(segments[-1:], facts.time_base))
    return last * facts.time_base + 1 / facts.rate


def _add_video(output: OutputContainer, coded: VideoStream, facts: StreamFacts) -> VideoStream:
    stream = output.add_stream_from_template(coded, opaque=True)
    # Pieces carry the tags in the bitstream, where their codec has a place; files have their own.
    tag(stream.codec_context, facts)
    stream.codec_context.framerate = facts.rate
    stream.time_base = facts.time_base
    stream.set_display_matrix(facts.display_matrix)
    if coded.codec_context.name == "hevc" and output.format.name in ("mp4", "mov"):
        # FFmpeg's default, hev1, is not played by Apple's.
        stream.codec_context.codec_tag = "hvc1"
    return stream


def _video_packets(
    segments: Sequence[Segment], facts: StreamFacts, stream: VideoStream
) -> Iterator[Packet[Any]]:
    times = [cast(int, packet.pts) for packet in read_packets(segments, facts.time_base)]
    shown = sorted(times)
    # Nobody says how long the last frame is shown: as long as the one before.
    steps = [later - time for time, later in pairwise(shown)]
    steps.append(steps[-1] if steps else max(1, round(1 / (facts.rate * facts.time_base))))
    durations = dict(zip(shown, steps, strict=True))
    packets = read_packets(segments, facts.time_base)
    for packet, dts in zip(packets, decode_times(times), strict=True):
        packet.stream = stream
        packet.dts, packet.duration = dts, durations[cast(int, packet.pts)]
        yield packet


def _copy(
    source: InputContainer,
    output: OutputContainer,
    companions: Companions,
    length: Fraction | None,
) -> Iterator[Packet[Any]]:
    """Add the streams that fit, and what belongs to the file; the packets of `length` seconds."""
    video = video_stream(source, str(companions.path))
    copies: dict[int, Stream] = {}
    for stream in source.streams:
        if stream.index != video.index and _fits(stream, output.format.name):
            copy = output.add_stream_from_template(stream, opaque=True)
            copy.metadata.update(_fresh(stream.metadata))
            copy.disposition = stream.disposition
            copies[stream.index] = copy
    written = output.streams.video[0]
    written.metadata.update(_fresh(video.metadata))
    written.disposition = video.disposition
    output.metadata.update(_fresh(source.metadata))
    begin = companions.origin * cast(Fraction, video.time_base)
    end = None if length is None else begin + length
    output.set_chapters(list(_chapters(source, begin, end)))
    return _copied_packets(source, copies, begin, end)


def _copied_packets(
    source: InputContainer, copies: Mapping[int, Stream], begin: Fraction, end: Fraction | None
) -> Iterator[Packet[Any]]:
    wanted = [source.streams[index] for index, copy in copies.items() if copy.type != "attachment"]
    if not wanted:
        return
    for packet in _readable(source.demux(wanted)):
        if packet.pts is None or packet.is_corrupt:
            continue  # The end of a stream is an empty packet.
        time = packet.pts * packet.time_base
        if (begin and time < begin) or (end is not None and time >= end):
            continue
        shift = round(begin / packet.time_base)
        packet.pts -= shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = copies[packet.stream.index]
        yield packet


def _readable(packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    """Packets up to where a clip is cut short; whoever decoded it has warned of that."""
    with suppress(av.error.InvalidDataError):
        yield from packets


def _chapters(source: InputContainer, begin: Fraction, end: Fraction | None) -> Iterator[Any]:
    for chapter in source.chapters():
        tick = chapter["time_base"] or Fraction(1, 1000)
        shift = round(begin / tick)
        if chapter["end"] > shift and (end is None or chapter["start"] * tick < end):
            moved = {"start": max(0, chapter["start"] - shift), "end": chapter["end"] - shift}
            yield {**chapter, **moved}


def _fresh(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in tags.items()
        if name not in _STALE_TAGS and not name.startswith(_STALE_PREFIXES)
    }


def _seconds(packet: Packet[Any]) -> float:
    time = packet.pts if packet.dts is None else packet.dts
    return float((time or 0) * packet.time_base)
