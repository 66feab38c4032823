"""What an output takes from its source clip: audio, subtitles, attachments, tags and chapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from ikc_deploy.video.clocks import ContinuousClock, Trim, can_jump
from ikc_deploy.video.opening import open_input
from ikc_deploy.video.source_facts import video_stream
from ikc_deploy.video.tracks import TIMECODE, Track

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class Passthrough:
    """The streams, tags and chapters that an output takes from its source clip."""

    path: Path
    """Path of the source clip."""
    tracks: tuple[Track, ...] = ()
    """Streams other than the video."""
    trim: Trim = field(default_factory=Trim)
    """Part of the source clip to take."""
    jumps: tuple[Fraction, ...] = ()
    """Jumps of the clock of the source, as `ContinuousClock.jumps`."""
    tags: bool = True
    """Whether to take tags and chapters."""
    cut: bool = False
    """Whether to omit what begins after the last frame."""

    def without(self, index: int | None) -> Passthrough | None:
        """Return a copy without the stream of an index; None if it has no such stream."""
        tracks = tuple(track for track in self.tracks if track.index != index)
        return None if len(tracks) == len(self.tracks) else replace(self, tracks=tracks)

    @contextmanager
    def opened(self) -> Iterator[OpenPassthrough]:
        """Open the source; close it at the end of the block.

        Raises:
            UnreadableClipError: The source cannot be read.
            NoVideoError: The source has no video stream.
        """
        with closing(open_input(self.path, str(self.path))) as source:
            yield OpenPassthrough(self, source, video_stream(source, str(self.path)))


@dataclass(frozen=True)
class OpenPassthrough:
    """A `Passthrough` whose source is open."""

    taken: Passthrough
    """Streams, tags and chapters to take."""
    source: InputContainer
    """The open source; the caller closes it."""
    video: VideoStream
    """Video stream of the source."""

    def only(self, tracks: Sequence[Track], tags: bool = False) -> OpenPassthrough:
        """Return the same open source with other tracks, and with or without tags."""
        return replace(self, taken=replace(self.taken, tracks=tuple(tracks), tags=tags))

    @property
    def timecode(self) -> str | None:
        """Timecode of the first frame of the clip; None if it has none."""
        tags = {**self.source.metadata, **self.video.metadata}
        return next((tag for name, tag in tags.items() if name.lower() == TIMECODE), None)

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets of the tracks on a continuous clock, up to where the file ends."""
        wanted = [
            stream
            for stream in (self.source.streams[track.index] for track in self.taken.tracks)
            if stream.type != "attachment"
        ]
        if not wanted:
            return
        clock = ContinuousClock(self.taken.jumps)
        packets = self.source.demux(wanted)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return  # The decoder of the clip has already warned of damage.
            clock(packet)
            yield packet


def find_jumps(path: Path) -> tuple[Fraction, ...]:
    """Return the jumps of the clock of a clip's video, as `ContinuousClock.jumps`; read the file.

    Raises:
        UnreadableClipError: The clip cannot be read.
        NoVideoError: The clip has no video stream.
    """
    with closing(open_input(path, str(path))) as container:
        if not can_jump(container):
            return ()
        clock, packets = ContinuousClock(), container.demux(video_stream(container, str(path)))
        with suppress(av.FFmpegError):
            for packet in packets:
                clock(packet)
        return tuple(clock.jumps)
