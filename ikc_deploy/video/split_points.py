"""Points at which a clip can be split, so that its parts are processed independently.

Decoding can begin at any key frame, and the frames that are shown from a key frame on do not need
earlier ones. A range holds the frames that are shown from one key frame until just before another.
The points are read from the packets, without decoding, so that every worker finds the same ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from ikc_deploy.video.clip import Clip, ClipRange
from ikc_deploy.video.clocks import ContinuousClock, can_jump
from ikc_deploy.video.opening import open_input
from ikc_deploy.video.source_facts import video_stream

if TYPE_CHECKING:
    from av.packet import Packet


def split_ranges(clip: Clip, frames: int) -> list[ClipRange]:
    """Split the span of a clip into ranges; read the whole file once.

    A clip is not split if it is deinterlaced (a frame needs its neighbours), packets lack time
    stamps or presentation times, two packets have the same one, or the clock is reset within the
    clip.

    Args:
        clip: A clip from a file.
        frames: Approximate minimum number of frames per range; the last range may have fewer.

    Returns:
        The ranges in order, at least one.

    Raises:
        UnreadableClipError: The file can no longer be read.
    """
    if clip.deinterlaced or clip.has_guessed_times:
        return [ClipRange()]
    times: list[int] = []
    keys: dict[int, int] = {}
    clock = ContinuousClock()
    for packet in _packets(Path(clip.name)):
        if can_jump(clip.container):
            clock(packet)
        if packet.pts is None or clock.jumps:
            return [ClipRange()]
        times.append(packet.pts)
        if packet.is_keyframe:
            keys[packet.pts] = packet.pts if packet.dts is None else packet.dts
    if len(set(times)) < len(times):
        return [ClipRange()]
    least = frames / (clip.facts.rate * clip.facts.time_base)
    cuts: list[int] = []
    for key in sorted(keys):
        if key >= (cuts[-1] if cuts else clip.first_pts) + least:
            cuts.append(key)
    return _between(cuts, keys, sorted(times))


def _between(cuts: list[int], keys: dict[int, int], times: list[int]) -> list[ClipRange]:
    begins, ends = [None, *cuts], [*cuts, None]
    places = [0, *(bisect_left(times, cut) for cut in cuts), len(times)]
    return [
        ClipRange(begin, end, None if begin is None else keys[begin], after - before)
        for begin, end, before, after in zip(begins, ends, places, places[1:], strict=False)
    ]


def _packets(path: Path) -> Iterator[Packet[Any]]:
    """Yield the packets of the video, up to where the file is truncated."""
    with closing(open_input(path, str(path))) as container:
        packets = container.demux(video_stream(container, str(path)))
        with suppress(av.FFmpegError):
            yield from (packet for packet in packets if packet.size)
