"""Audio, subtitles and attachments of a clip: packets copied to the output, or re-encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import av
from av.audio.stream import AudioStream
from av.filter import Graph
from av.subtitles.stream import SubtitleStream

from ikc_deploy.video.clocks import TimestampRepair, Trim
from ikc_deploy.video.subtitle_tracks import SubtitleEncoding, SubtitleTranscoder

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

COPIED: Final = ("audio", "subtitle", "attachment")
"""Types of streams that are written with the video."""

TIMECODE: Final = "timecode"
"""Tag of the timecode of the first frame, from which FFmpeg's muxers write a timecode track."""

_LAYOUTS: Final = {
    **dict(enumerate(("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"), 1)),
    16: "hexadecagonal",
}
"""Usual channel layout of each number of channels, for sources that do not specify it."""

_BITS_PER_CHANNEL: Final = 96_000
"""Bit rate of lossy audio in bits per second: close to transparent for AAC and Opus."""

# Tags that describe the source container, statistics of its streams, and the alpha channel, none of
# which apply to the output.
_STALE_TAGS: Final = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "alpha_mode"),
)
_STALE_PREFIXES: Final = ("bps", "number_of_", "_statistics_", "duration-")


@dataclass(frozen=True)
class AudioEncoding:
    """The encoding of audio that the container does not support."""

    encoder: str
    """FFmpeg's name of the encoder."""
    layout: str
    """FFmpeg's name of the channel layout."""
    rate: int
    """Samples per second."""


@dataclass(frozen=True)
class Track:
    """One stream of the source that is written to the output."""

    index: int
    """Index of the stream in the source."""
    encoding: AudioEncoding | SubtitleEncoding | None = None
    """Encoding of audio or text; None if its packets are copied."""


class TrackConverter(Protocol):
    """A converter of the packets of one source stream to packets of the output."""

    @property
    def stream(self) -> Stream:
        """Stream in the output."""

    def packets(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Yield the output packets of one source packet; the output's header must be written."""

    def flush(self) -> Iterator[Packet[Any]]:
        """Yield the remaining output packets after the last source packet."""


def add_track(output: OutputContainer, source: Stream, track: Track, trim: Trim) -> TrackConverter:
    """Add a stream to `output`; raise what PyAV raises if the container does not support it."""
    added: TrackConverter
    if track.encoding is None:
        added = _TrackCopy(output, source, trim)
    elif isinstance(track.encoding, SubtitleEncoding):
        added = SubtitleTranscoder(output, cast(SubtitleStream, source), track.encoding, trim)
    else:
        added = _AudioTranscoder(output, cast(AudioStream, source), track.encoding, trim)
    added.stream.metadata.update(copied_tags(source.metadata, trim))
    added.stream.disposition = source.disposition
    if source.type == "attachment":
        # Matroska requires both, but some files lack them.
        added.stream.metadata.setdefault("filename", f"attachment-{source.index}")
        added.stream.metadata.setdefault("mimetype", "application/octet-stream")
    return added


def copied_tags(tags: Mapping[str, str], trim: Trim) -> dict[str, str]:
    """Return the tags of the source that also apply to the output."""
    # A timecode is that of the first frame.
    stale = _STALE_TAGS if trim.begin is None else (*_STALE_TAGS, TIMECODE)
    return {
        name: value
        for name, value in tags.items()
        if name and name.lower() not in stale and not name.lower().startswith(_STALE_PREFIXES)
    }


def default_layout(channels: int) -> str | None:
    """Return FFmpeg's name of the usual layout of `channels` channels; None if there is none."""
    return _LAYOUTS.get(channels)


class _TrackCopy:
    def __init__(self, output: OutputContainer, source: Stream, trim: Trim) -> None:
        self.stream: Stream = output.add_stream_from_template(source, opaque=True)
        self._trim = trim
        self._repair = TimestampRepair(output, self.stream)
        if isinstance(source, AudioStream) and _unnamed(source.codec_context.layout.name):
            layout = default_layout(source.codec_context.layout.nb_channels)
            if layout is not None:
                # AVI and others specify only a number of channels, and MP4 requires a layout.
                cast(AudioStream, self.stream).codec_context.layout = layout

    def packets(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        if not packet.size or packet.is_corrupt:
            return  # The end of a stream is an empty packet.
        tick = packet.time_base
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None and not self._trim.contains(time * tick):
            return
        shift = round(self._trim.origin / tick)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        self._repair(packet)
        yield packet

    def flush(self) -> Iterator[Packet[Any]]:
        return iter(())


class _AudioTranscoder:
    def __init__(
        self, output: OutputContainer, source: AudioStream, encoding: AudioEncoding, trim: Trim
    ) -> None:
        stream = output.add_stream(encoding.encoder, encoding.rate)
        self.stream = cast(AudioStream, stream)
        context = self.stream.codec_context
        context.layout = encoding.layout
        context.time_base = Fraction(1, encoding.rate)
        if context.codec.lossy and not context.codec.lossless:
            context.bit_rate = _BITS_PER_CHANNEL * context.layout.nb_channels
        self._source = source
        self._encoding = encoding
        self._trim = trim
        self._repair = TimestampRepair(output, self.stream)
        self._input: tuple[object, ...] = ()
        self._graph: Graph | None = None
        self._end: int | None = None

    def packets(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        try:
            frames = cast("list[AudioFrame]", packet.decode())
        except av.FFmpegError:
            return  # A damaged packet is a gap.
        for frame in frames:
            if self._placed(frame):
                yield from self._encoded(self._filtered(frame))

    def flush(self) -> Iterator[Packet[Any]]:
        yield from self._encoded(self._flushed())
        yield from self._muxable(self.stream.encode(None))

    def _placed(self, frame: AudioFrame) -> bool:
        """Set the output time of a frame, in samples; return False if it is not copied."""
        if frame.pts is not None and frame.time_base is not None:
            time = frame.pts * frame.time_base
            if not self._trim.contains(time):
                return False
            frame.pts = round((time - self._trim.origin) * self._encoding.rate)
        else:
            frame.pts = self._end or 0
        frame.time_base = Fraction(1, self._encoding.rate)
        self._end = frame.pts + round(
            Fraction(frame.samples, frame.sample_rate) * self._encoding.rate
        )
        return True

    def _filtered(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        found = frame.format.name, frame.layout.name, frame.sample_rate
        if found != self._input:
            yield from self._flushed()
            self._graph, self._input = self._new_graph(frame), found
        graph = cast(Graph, self._graph)
        graph.push(frame)
        yield from _pulled(graph)

    def _flushed(self) -> Iterator[AudioFrame]:
        """Yield the remaining frames of the current graph."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.push(None)
            yield from _pulled(graph)

    def _new_graph(self, frame: AudioFrame) -> Graph:
        context = self.stream.codec_context
        graph = Graph()
        nodes: list[Any] = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                time_base=Fraction(1, self._encoding.rate),
            ),
            # Gaps in the audio are filled, so that it stays in sync.
            graph.add("aresample", "async=1"),
            graph.add(
                "aformat",
                f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}"
                f":channel_layouts={context.layout.name}",
            ),
        ]
        if context.frame_size:
            nodes.append(graph.add("asetnsamples", f"n={context.frame_size}:p=0"))
        nodes.append(graph.add("abuffersink"))
        graph.link_nodes(*nodes).configure()
        return graph

    def _encoded(self, frames: Iterator[AudioFrame]) -> Iterator[Packet[Any]]:
        for frame in frames:
            yield from self._muxable(self.stream.encode(frame))

    def _muxable(self, packets: list[Packet[Any]]) -> Iterator[Packet[Any]]:
        for packet in packets:
            self._repair(packet)
            yield packet


def audio_encodings(
    source: AudioStream, frame: AudioFrame, container: str
) -> Iterator[AudioEncoding]:
    """Yield encodings of audio that a container may support, the best first.

    Args:
        source: The audio stream to re-encode.
        frame: Its first decoded frame.
        container: FFmpeg's name of the output container.
    """
    own = None if _unnamed(frame.layout.name) else frame.layout.name
    layouts = dict.fromkeys((own, default_layout(frame.layout.nb_channels), "stereo"))
    for encoder in (*_lossless(source, frame, container), *_LOSSY.get(container, ("aac",))):
        try:
            rates = av.Codec(encoder, "w").audio_rates
        except av.codec.codec.UnknownCodecError:
            continue
        rate = frame.sample_rate
        if rates and rate not in rates:
            rate = min(rates, key=lambda each: (each < rate, abs(each - rate)))
        for layout in layouts:
            if layout is not None:
                yield AudioEncoding(encoder, layout, rate)


_LOSSY: Final = {"webm": ("libopus", "libvorbis"), "mp4": ("aac", "libopus")}
_PCM: Final = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le"}


def _lossless(source: AudioStream, frame: AudioFrame, container: str) -> Iterator[str]:
    codec = source.codec_context.codec
    if codec.lossless and not codec.lossy and container in ("mov", "matroska", "nut"):
        sample = frame.format.name.removesuffix("p")
        yield _PCM.get(sample, "pcm_f64le" if sample == "dbl" else "pcm_s32le")


def _unnamed(layout: str) -> bool:
    return layout.endswith(" channels")


def _pulled(graph: Graph) -> Iterator[AudioFrame]:
    while True:
        try:
            yield cast("AudioFrame", graph.pull())
        except (BlockingIOError, EOFError):
            return
