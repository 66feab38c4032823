"""Trial runs of what a container supports, with the real muxer and streams, before any work.

FFmpeg's list of supported codecs is not reliable: some muxers fail when the header is written, at a
packet, or at the end, and MPEG-TS accepts all codecs and writes unknown ones as private data that
no player reads. Therefore everything is written once to a file that discards its data, with one
coded frame instead of the video, and a sample of it is read back.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import av
from av.audio.stream import AudioStream
from av.subtitles.stream import SubtitleStream

from ikc_deploy.errors import UnreadableClipError, VideoError
from ikc_deploy.files import atomic_path, check_file
from ikc_deploy.video.clip import video_stream
from ikc_deploy.video.excerpt import Excerpt
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.opening import open_input
from ikc_deploy.video.output_container import (
    Beside,
    MuxedOutput,
    TrackError,
    codec_name,
    read_beside,
)
from ikc_deploy.video.sidedata import display_matrix, same_turn, side_data_names
from ikc_deploy.video.text_tracks import TextCoding, text_codings
from ikc_deploy.video.tracks import COPIED, SoundCoding, Track, sound_codings
from ikc_deploy.video.write_errors import explained, reason_of, writing

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_SAMPLE_PACKETS: Final = 100
_SAMPLE_BYTES: Final = 4_000_000
"""Limit of the sample of a stream that is read back: some seconds of audio."""

_SAME: Final = (frozenset(("mp1", "mp2", "mp3")), frozenset(("text", "subrip")))
"""Sets of codecs that containers store under one name."""


@dataclass
class Plan:
    """The streams other than the video that are written to the output."""

    tracks: list[Track] = field(default_factory=list)
    """Streams to write."""
    warnings: list[str] = field(default_factory=list)
    """Parts that are omitted or re-encoded, a sentence for each."""
    tags: bool = True
    """Whether the container supports the tags and chapters."""


@dataclass(frozen=True)
class Trial:
    """A container with a coded video, in which the streams of a source are tried."""

    container: str
    """FFmpeg's name of the container."""
    coded: bytes
    """One coded frame of the video, from `encoders.coded_frame`."""
    facts: StreamFacts
    """Properties of the video."""
    excerpt: Excerpt = field(default_factory=Excerpt)
    """Part of the source to write."""
    jumps: Sequence[Fraction] = ()
    """Jumps of the clock of the source, as `RunningClock.jumps`."""

    def plan(self, path: Path, shown: frozenset[str] = frozenset()) -> Plan:
        """Determine which streams of a source are written, and how; read it to its end.

        Audio and text subtitles that cannot be copied are re-encoded.

        Args:
            path: The source.
            shown: Names of the side data of the source's frames.

        Raises:
            VideoError: The source has audio, but none of it can be copied or re-encoded.
            UnreadableClipError: The source cannot be read.
        """
        plan = Plan()
        with explained(), closing(open_input(path, str(path))) as source:
            video = video_stream(source, str(path))
            copies = self._copy(source, video)
            for stream in source.streams:
                if stream.index != video.index:
                    self._decide(path, stream, copies.get(stream.index), plan)
            self._check_sound(path, source, copies, plan)
            self._check_picture(source, video, shown, plan)
        return plan

    def write_header(self, target: Path, path: Path | None, plan: Plan) -> None:
        """Write the header with all streams of `plan` to a file beside `target`, and delete it.

        Args:
            target: The output of the run.
            path: The source; None if nothing is copied from it.
            plan: The streams to write.

        Raises:
            OutputError: No file can be written at `target`.
            VideoError: The header cannot be written.
            DiskFullError: The disk is full.
        """
        check_file(target)
        with explained(), writing(target), suppress(_Enough), atomic_path(target) as temporary:
            if path is None:
                self.output(temporary).abandon()
                raise _Enough
            with closing(open_input(path, str(path))) as source:
                video = video_stream(source, str(path))
                beside = self._beside(source, video, plan.tracks, plan.tags)
                try:
                    self.output(temporary, beside).abandon()
                except TrackError as error:
                    raise error.__cause__ or error from error
            raise _Enough

    def _copy(self, source: InputContainer, video: VideoStream) -> dict[int, _Copy]:
        """Copy all streams of the types in `COPIED`, each into a separate output."""
        streams = [stream for stream in source.streams if stream.type in COPIED]
        copies = {
            stream.index: _Copy(self, self._beside(source, video, [Track(stream.index)]))
            for stream in streams
        }
        everything = self._beside(source, video, [Track(stream.index) for stream in streams])
        for packet in read_beside(everything):
            copies[packet.stream.index].take(packet)
        for copy in copies.values():
            copy.finish()
        return copies

    def _decide(self, path: Path, stream: Stream, copy: _Copy | None, plan: Plan) -> None:
        name = codec_name(stream)
        what = f"stream {stream.index} is left out: {stream.type}, {name}"
        if copy is None:
            plan.warnings.append(what)
        elif copy.empty:
            plan.warnings.append(f"{what}, which holds nothing")
        elif not copy.problem:
            plan.tracks.append(Track(stream.index))
        elif (coding := self._coding(path, stream)) is not None:
            plan.tracks.append(Track(stream.index, coding))
            plan.warnings.append(
                f"stream {stream.index} is re-encoded as {coding.encoder}: {self.container} cannot "
                f"hold this {name} {stream.type} ({copy.problem})"
            )
        else:
            plan.warnings.append(f"{what}, which {self.container} cannot hold ({copy.problem})")

    def _check_sound(
        self, path: Path, source: InputContainer, copies: dict[int, _Copy], plan: Plan
    ) -> None:
        """Raise `VideoError` if all audio that can be decoded would be omitted."""
        kept = {track.index for track in plan.tracks}
        if kept.intersection(stream.index for stream in source.streams.audio):
            return
        sound = [
            stream
            for stream in source.streams.audio
            # Audio that cannot be decoded is lost already.
            if not copies[stream.index].empty and not _undecodable(path, stream)
        ]
        if sound:
            raise VideoError(
                f"{self.container} cannot hold {codec_name(sound[0])} audio "
                f"({copies[sound[0].index].problem}), and it cannot be re-encoded; remove the "
                "audio first: ffmpeg -i CLIP -map 0 -map -0:a -c copy SILENT.mkv"
            )

    def _check_picture(
        self, source: InputContainer, video: VideoStream, shown: frozenset[str], plan: Plan
    ) -> None:
        """Add warnings for tags, rotation and pixel shape that the container does not support."""
        file = io.BytesIO()
        try:
            self.output(file, self._beside(source, video, [], tags=True)).write(self.packets())
        except TrackError as error:
            plan.tags = False
            plan.warnings.append(f"tags and chapters are left out ({_why(error)})")
            file = io.BytesIO()
            self.output(file).write(self.packets())
        try:
            frame, aspect = _read_picture(file)
        except UnreadableClipError:
            return  # Too short to be recognised; `choose_encoder` has read its own trial back.
        if not same_turn(display_matrix(frame), self.facts.display_matrix):
            plan.warnings.append(
                f"{self.container} does not store that the video is rotated or flipped; players "
                "show it as it is coded"
            )
        if abs(aspect / self.facts.aspect - 1) > 0.01:
            plan.warnings.append(
                f"{self.container} does not store that pixels are {float(self.facts.aspect):.3g} "
                "times as wide as high; players show them square"
            )
        if "STEREO3D" in shown - side_data_names(frame):
            plan.warnings.append(
                "the clip is stereoscopic (3D); the output is not marked as such, and players show "
                "its views as one frame"
            )

    def _coding(self, path: Path, stream: Stream) -> SoundCoding | TextCoding | None:
        """Return an encoding of audio or text that the container supports, or None."""
        for coding in self._codings(path, stream):
            if self._codes(path, Track(stream.index, coding)):
                return coding
        return None

    def _codings(self, path: Path, stream: Stream) -> Iterator[SoundCoding | TextCoding]:
        if isinstance(stream, SubtitleStream):
            yield from text_codings(stream, self.container)
        elif isinstance(stream, AudioStream) and stream.codec_context is not None:
            frame = _first_sound(path, stream)
            if frame is not None:
                yield from sound_codings(stream, frame, self.container)

    def _codes(self, path: Path, track: Track) -> bool:
        file = io.BytesIO()
        with closing(open_input(path, str(path))) as source:
            beside = self._beside(source, video_stream(source, str(path)), [track])
            try:
                output = self.output(file, beside)
                output.put(self.packets())
                for packet in islice(read_beside(beside), _SAMPLE_PACKETS):
                    output.feed(packet)
                output.rest()
                output.close()
            except TrackError:
                return False
        assert track.coding is not None
        codec = av.Codec(track.coding.encoder, "w")
        return _holds(file, codec.type, codec.canonical_name)

    def _beside(
        self,
        source: InputContainer,
        video: VideoStream,
        tracks: Sequence[Track],
        tags: bool = False,
    ) -> Beside:
        return Beside(source, video, tracks, self.excerpt, self.jumps, tags)

    def output(self, target: Path | BinaryIO, beside: Beside | None = None) -> MuxedOutput:
        """Open the container and write its header; raise what `MuxedOutput` raises."""
        with closing(open_input(io.BytesIO(self.coded), "the coded frame")) as coded:
            return MuxedOutput(target, self.container, coded.streams.video[0], self.facts, beside)

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets of the coded frame."""
        with closing(open_input(io.BytesIO(self.coded), "the coded frame")) as coded:
            yield from (packet for packet in coded.demux(video=0) if packet.size)


class _Enough(Exception):
    """A signal to leave a block and discard its file."""


class _Copy:
    """A trial copy of one stream."""

    def __init__(self, trial: Trial, beside: Beside) -> None:
        self.problem = ""
        """Reason why the stream cannot be copied; empty if it can."""
        (track,) = beside.tracks
        self._stream = beside.source.streams[track.index]
        self._trial = trial
        self._beside = beside
        self._packets = 0
        self._bytes = 0
        self._sample: list[Packet[Any]] = []
        self._output: MuxedOutput | None = None
        if self._stream.codec_context is None and self._stream.type != "attachment":
            self.problem = "FFmpeg has no decoder for it"
            return
        with self._noted():
            output = trial.output(cast(BinaryIO, _Nowhere()), beside)
            output.put(trial.packets())
            self._output = output

    @property
    def empty(self) -> bool:
        """Whether the stream has no packets."""
        return self._stream.type != "attachment" and not self._packets

    def take(self, packet: Packet[Any]) -> None:
        """Copy one more packet."""
        self._packets += packet.size > 0
        if self._output is None or self.problem:
            return
        with self._noted():
            made = self._output.feed(packet)
            if len(self._sample) < _SAMPLE_PACKETS and self._bytes < _SAMPLE_BYTES:
                self._sample += made
                self._bytes += sum(each.size for each in made)

    def finish(self) -> None:
        """Finish the file after the last packet, and read a sample back."""
        if self._output is None or self.empty:
            return
        file = io.BytesIO()
        with self._noted():
            self._output.close()
            again = self._trial.output(file, self._beside)
            again.put(self._trial.packets())
            again.again(self._sample)
            again.close()
            if not _holds(file, self._stream.type, codec_name(self._stream)):
                self.problem = "it is read back as something else"
            elif isinstance(self._stream, AudioStream) and not self._sounds_alike(file):
                self.problem = "it does not play from there"

    def _sounds_alike(self, file: io.BytesIO) -> bool:
        """Return whether the written audio has the rate and channels of the source."""
        context = cast(AudioStream, self._stream).codec_context
        wanted = _form(_decoded(context, iter(self._sample)))
        file.seek(0)
        with closing(open_input(file, "the trial")) as written:
            (sound,) = written.streams.audio
            found = _form(_decoded(sound.codec_context, written.demux(sound)))
        return wanted is None or found == wanted

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except TrackError as error:
            self.problem = _why(error)
            if self._output is not None:
                self._output.abandon()


class _Nowhere:
    """A file that discards its data."""

    def __init__(self) -> None:
        self._place = self._size = 0

    def write(self, data: bytes) -> int:
        self._place += len(data)
        self._size = max(self._size, self._place)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place


def _holds(file: io.BytesIO, kind: str, codec: str) -> bool:
    """Return whether a written file is read back with a stream of this kind and codec."""
    file.seek(0)
    try:
        with closing(open_input(file, "the trial")) as written:
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
    alike = next((same for same in _SAME if codec in same), {codec})
    return any(name in alike for name in found)


def _read_picture(file: io.BytesIO) -> tuple[VideoFrame | None, Fraction]:
    """Return the first frame of a written file, and its pixel aspect ratio."""
    file.seek(0)
    with closing(open_input(file, "the trial")) as written:
        video = written.streams.video[0]
        frame = next(iter(written.decode(video)), None)
        return frame, video.sample_aspect_ratio or Fraction(1)


def _decoded(context: AudioCodecContext, packets: Iterator[Packet[Any]]) -> Iterator[AudioFrame]:
    """Yield the frames of all packets that can be decoded."""
    for packet in packets:
        with suppress(av.FFmpegError):
            yield from context.decode(packet)


def _first_sound(path: Path, stream: Stream) -> AudioFrame | None:
    """Return the first frame of an audio stream that can be decoded; None if there is none."""
    with closing(open_input(path, str(path))) as source:
        sound = cast(AudioStream, source.streams[stream.index])
        return next(_decoded(sound.codec_context, source.demux(sound)), None)


def _undecodable(path: Path, stream: Stream) -> bool:
    """Return whether there is a decoder for a stream, but it decodes no frame."""
    return stream.codec_context is not None and _first_sound(path, stream) is None


def _form(frames: Iterator[AudioFrame]) -> tuple[int, int] | None:
    """Return rate and channels of the last frame; some decoders detect them late."""
    form = None
    for frame in frames:
        form = frame.sample_rate, frame.layout.nb_channels
    return form


def _why(error: TrackError) -> str:
    return reason_of(error.__cause__ or error)
