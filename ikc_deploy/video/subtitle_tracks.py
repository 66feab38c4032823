"""Text subtitles, re-encoded in a format that the container supports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

import av

from ikc_deploy.video.clocks import TimestampRepair, Trim

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.subtitles.stream import SubtitleStream

_ENCODERS: Final = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
_TICK: Final = Fraction(1, 1000)


@dataclass(frozen=True)
class SubtitleEncoding:
    """The format of text subtitles in the output."""

    encoder: str
    """FFmpeg's name of the encoder."""


def subtitle_encodings(source: SubtitleStream, container: str) -> Iterator[SubtitleEncoding]:
    """Yield formats that a container may support; none for bitmap subtitles.

    Args:
        source: The subtitle stream to re-encode.
        container: FFmpeg's name of the output container.
    """
    context = source.codec_context
    if context is not None and context.codec.text_sub and container in _ENCODERS:
        yield SubtitleEncoding(_ENCODERS[container])


class SubtitleTranscoder:
    """A converter of text subtitles to another format.

    Args:
        output: Container that gets the stream, before its header is written.
        source: Subtitle stream to decode.
        encoding: Format of the output.
        trim: Part of the source to write.

    Raises:
        av.FFmpegError: The decoder or the encoder cannot be opened.
    """

    def __init__(
        self,
        output: OutputContainer,
        source: SubtitleStream,
        encoding: SubtitleEncoding,
        trim: Trim,
    ) -> None:
        self.stream: SubtitleStream = cast(Any, output).add_stream(encoding.encoder)
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        self._encoder = self.stream.codec_context
        self._encoder.time_base = self.stream.time_base = _TICK
        # The styles that the decoder has found; encoders need them.
        self._encoder.subtitle_header = self._decoder.subtitle_header
        self._trim = trim
        self._repair = TimestampRepair(output, self.stream)

    def packets(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Yield the packets of one packet of the source."""
        time = packet.dts if packet.pts is None else packet.pts
        if not packet.size or time is None or not self._trim.contains(time * packet.time_base):
            return
        try:
            text = self._decoder.decode2(packet)
        except av.FFmpegError:
            return  # A damaged packet is a gap.
        if text is None or not len(text):
            return  # Some formats store the times without a subtitle.
        made = self._encoder.encode_subtitle(text)
        made.pts = made.dts = round((time * packet.time_base - self._trim.origin) / _TICK)
        made.duration = round((packet.duration or 0) * packet.time_base / _TICK)
        made.time_base, made.stream = _TICK, self.stream
        self._repair(made)
        yield made

    def flush(self) -> Iterator[Packet[Any]]:
        """Yield nothing: no packet is kept back."""
        return iter(())
