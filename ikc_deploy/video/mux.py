"""Muxing of finished chunks with what the output takes from the source clip (`Passthrough`).

The video is not encoded again. Its decoding times are computed, because every chunk was encoded
separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ikc_deploy.errors import UnreadableClipError
from ikc_deploy.files import atomic_path
from ikc_deploy.video.chunks import Chunk, open_chunk, read_packets
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.names import container_of
from ikc_deploy.video.output_container import MuxedOutput, TrackError
from ikc_deploy.video.passthrough import Passthrough
from ikc_deploy.video.write_errors import explained, no_room, reason_of, writing

if TYPE_CHECKING:
    from av.packet import Packet


def mux(
    chunks: Sequence[Chunk],
    facts: StreamFacts,
    target: Path,
    passthrough: Passthrough | None,
) -> list[str]:
    """Write a video file from chunks, completely or not at all.

    If another stream, tags or chapters cannot be written, they are omitted and the video is kept.

    Args:
        chunks: The chunks of the video, in order.
        facts: Properties of the output.
        target: The file to write; its suffix selects the container.
        passthrough: The other streams, tags and chapters; None for none.

    Returns:
        A sentence for each omitted part.

    Raises:
        DiskFullError: The disk is full.
        VideoError: The video cannot be written.
    """
    lost: list[str] = []
    with explained(), writing(target):
        while True:
            try:
                with atomic_path(target) as temporary:
                    _write(temporary, container_of(target), chunks, facts, passthrough)
            except TrackError as error:
                cause = error.__cause__ or error
                if no_room(cause) or passthrough is None:
                    raise cause from error
                what = "audio, subtitles and tags are" if error.index is None else None
                lost.append(
                    f"{what or f'stream {error.index} is'} missing in '{target}': "
                    f"{reason_of(cause)}"
                )
                passthrough = passthrough.without(error.index)
            except UnreadableClipError as error:
                if passthrough is None:
                    raise
                lost.append(f"audio, subtitles and tags are missing in '{target}': {error}")
                passthrough = None
            else:
                return lost


def decode_times(pts: Sequence[int]) -> list[int]:
    """Return decoding times for frames with presentation times `pts`, in order of decoding.

    The decoding times increase, and none is later than the presentation time of its frame.
    """
    shown = sorted(pts)
    place = {time: index for index, time in enumerate(shown)}
    delay = max((index - place[time] for index, time in enumerate(pts)), default=0)
    lead = shown[delay] - shown[0] if shown else 0
    return [
        shown[index - delay] if index >= delay else shown[index] - lead
        for index in range(len(shown))
    ]


def _write(
    path: Path,
    container: str,
    chunks: Sequence[Chunk],
    facts: StreamFacts,
    passthrough: Passthrough | None,
) -> None:
    with ExitStack() as files:
        source = None
        if passthrough is not None:
            if passthrough.cut:
                end = passthrough.trim.origin + _end(chunks, facts)
                passthrough = replace(passthrough, trim=replace(passthrough.trim, end=end))
            source = files.enter_context(passthrough.opened())
        first = files.enter_context(closing(open_chunk(chunks[0])))
        output = MuxedOutput(path, container, first.streams.video[0], facts, source)
        output.write(_video_packets(chunks, facts))


def _end(chunks: Sequence[Chunk], facts: StreamFacts) -> Fraction:
    """Return the presentation time of the last frame plus one frame duration, in seconds."""
    last = max(cast(int, packet.pts) for packet in read_packets(chunks[-1:], facts.time_base))
    return last * facts.time_base + 1 / facts.rate


def _video_packets(chunks: Sequence[Chunk], facts: StreamFacts) -> Iterator[Packet[Any]]:
    times = [cast(int, packet.pts) for packet in read_packets(chunks, facts.time_base)]
    shown = sorted(times)
    # The duration of the last frame is not known: use that of the frame before.
    steps = [later - time for time, later in pairwise(shown)]
    steps.append(steps[-1] if steps else max(1, round(1 / (facts.rate * facts.time_base))))
    durations = dict(zip(shown, steps, strict=True))
    packets = read_packets(chunks, facts.time_base)
    for packet, dts in zip(packets, decode_times(times), strict=True):
        packet.dts, packet.duration = dts, durations[cast(int, packet.pts)]
        yield packet
