"""A container with one coded frame, in which a trial writes streams and reads them back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from ikc_deploy.errors import UnreadableClipError
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.opening import open_input
from ikc_deploy.video.output_container import MuxedOutput, codec_name
from ikc_deploy.video.passthrough import OpenPassthrough

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

_SAME_CODECS: Final = (frozenset(("mp1", "mp2", "mp3")), frozenset(("text", "subrip")))
"""Sets of codecs that containers store under one name."""

TRIAL: Final = "the trial"
"""Name of a file of a trial in messages."""


@dataclass(frozen=True)
class TrialContainer:
    """A container with one coded frame instead of the video."""

    format: str
    """FFmpeg's name of the container."""
    coded: bytes
    """The coded frame, from `encoders.coded_frame`."""
    facts: StreamFacts
    """Properties of the video."""

    def output(
        self, target: Path | BinaryIO, passthrough: OpenPassthrough | None = None
    ) -> MuxedOutput:
        """Open the container and write its header; raise what `MuxedOutput` raises."""
        with closing(open_input(io.BytesIO(self.coded), "the coded frame")) as coded:
            video = coded.streams.video[0]
            return MuxedOutput(target, self.format, video, self.facts, passthrough)

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets of the coded frame."""
        with closing(open_input(io.BytesIO(self.coded), "the coded frame")) as coded:
            yield from (packet for packet in coded.demux(video=0) if packet.size)


@dataclass(frozen=True)
class ReadBack:
    """The video and the tags of a file of a trial, as they are read back."""

    frame: VideoFrame | None
    """First frame; None if it cannot be decoded."""
    aspect: Fraction
    """Width over height of a pixel."""
    tags: frozenset[str]
    """Names of the tags of the file and of the video, in lower case."""


def read_back(file: BinaryIO) -> ReadBack:
    """Read the video of a written file back; raise `UnreadableClipError` if that fails."""
    file.seek(0)
    with closing(open_input(file, TRIAL)) as written:
        video = written.streams.video[0]
        frame = next(iter(written.decode(video)), None)
        tags = frozenset(name.lower() for name in (*written.metadata, *video.metadata))
        return ReadBack(frame, video.sample_aspect_ratio or Fraction(1), tags)


def has_stream(file: BinaryIO, kind: str, codec: str) -> bool:
    """Return whether a written file is read back with a stream of this type and codec."""
    file.seek(0)
    try:
        with closing(open_input(file, TRIAL)) as written:
            found = [
                codec_name(stream)
                for stream in written.streams
                if stream.type == kind
                and (stream.codec_context is not None or kind == "attachment")
            ]
    except UnreadableClipError:
        return False
    if kind == "attachment":
        return bool(found)
    same = next((codecs for codecs in _SAME_CODECS if codec in codecs), {codec})
    return any(name in same for name in found)
