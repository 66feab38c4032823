"""What a container really takes, tried with the real muxer and streams before any work is done.

FFmpeg's list of what a container holds is not the truth: some muxers refuse when the header is
written, or at a packet, or at the end, and MPEG-TS takes everything and turns what it does not know
into private data that nothing plays. So everything is written once, to nowhere, with a coded frame
in the place of the video, and a sample of it is read back.
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

from ikc_deploy.errors import UnreadableClipError, VideoError
from ikc_deploy.files import atomic_path
from ikc_deploy.video.clip import video_stream
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
from ikc_deploy.video.tracks import COPIED, Excerpt, SoundCoding, Track, sound_codings
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
"""How much of a stream is read back: some seconds of sound."""

_SAME: Final = (frozenset(("mp1", "mp2", "mp3")), frozenset(("text", "subrip")))
"""Codecs that containers have one name for."""


@dataclass
class Plan:
    """How the streams beside the video reach the output."""

    tracks: list[Track] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What will be missing or is coded anew, a sentence for each."""
    tags: bool = True
    """The container takes the tags and chapters."""


@dataclass(frozen=True)
class Trial:
    """A container with a video like `coded`, in which the streams of a source are tried."""

    container: str
    coded: bytes
    """A frame of the video, as `encoders.coded_frame` gives it."""
    facts: StreamFacts
    """The video's."""
    excerpt: Excerpt = field(default_factory=Excerpt)
    jumps: Sequence[Fraction] = ()
    """Of the source's clock, as `RunningClock` gives them."""

    def plan(self, path: Path, shown: frozenset[str] = frozenset()) -> Plan:
        """Which streams of a source go along, and how; reads it to its end.

        Sound that cannot be copied is coded anew. `shown` is the side data of the source's
        pictures. Raises `VideoError` if all its sound can neither be copied nor coded, and
        `UnreadableClipError` if the source is gone.
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
        """Write the header, with all streams of `plan`, to a file beside `target`; delete it.

        Raises `VideoError` or `DiskFullError` if the file or the header cannot be written.
        """
        if target.is_dir():
            raise VideoError(f"'{target}' is a folder; choose another output")
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
        """Copy all streams that may go along, each into an output of its own."""
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
                f"stream {stream.index} is coded anew as {coding.encoder}: {self.container} cannot "
                f"hold this {name} audio ({copy.problem})"
            )
        else:
            plan.warnings.append(f"{what}, which {self.container} cannot hold ({copy.problem})")

    def _check_sound(
        self, path: Path, source: InputContainer, copies: dict[int, _Copy], plan: Plan
    ) -> None:
        """Raise `VideoError` if sound that could be heard somewhere would all be left out."""
        kept = {track.index for track in plan.tracks}
        if kept.intersection(stream.index for stream in source.streams.audio):
            return
        sound = [
            stream
            for stream in source.streams.audio
            # What a decoder makes nothing of is lost already.
            if not copies[stream.index].empty and not _undecodable(path, stream)
        ]
        if sound:
            raise VideoError(
                f"{self.container} cannot hold {codec_name(sound[0])} audio "
                f"({copies[sound[0].index].problem}), and it cannot be coded anew; take the "
                "sound out first: ffmpeg -i CLIP -map 0 -map -0:a -c copy SILENT.mkv"
            )

    def _check_picture(
        self, source: InputContainer, video: VideoStream, shown: frozenset[str], plan: Plan
    ) -> None:
        """Note what the container does not hold of the tags, the turn and the shape of pixels."""
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
            return  # Too short to be known again; the encoder's own trial was not.
        if not same_turn(display_matrix(frame), self.facts.display_matrix):
            plan.warnings.append(
                f"{self.container} does not say that the picture is turned or flipped; players "
                "show it as it is coded"
            )
        if abs(aspect / self.facts.aspect - 1) > 0.01:
            plan.warnings.append(
                f"{self.container} does not say that pixels are {float(self.facts.aspect):.3g} "
                "times as wide as high; players show them square"
            )
        if "STEREO3D" in shown - side_data_names(frame):
            plan.warnings.append(
                "the clip is stereoscopic (3D); the output does not say so, and players show its "
                "views as one picture"
            )

    def _coding(self, path: Path, stream: Stream) -> SoundCoding | None:
        """How to code sound anew; None if it cannot be decoded, or nothing is taken."""
        if stream.type != "audio" or stream.codec_context is None:
            return None
        frame = _first_sound(path, stream)
        if frame is None:
            return None
        for coding in sound_codings(cast(AudioStream, stream), frame, self.container):
            if self._codes(path, Track(stream.index, coding)):
                return coding
        return None

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
        coding = cast(SoundCoding, track.coding)
        return _holds(file, "audio", av.Codec(coding.encoder, "w").canonical_name)

    def _beside(
        self,
        source: InputContainer,
        video: VideoStream,
        tracks: Sequence[Track],
        tags: bool = False,
    ) -> Beside:
        return Beside(source, video, tracks, self.excerpt, self.jumps, tags)

    def output(self, target: Path | BinaryIO, beside: Beside | None = None) -> MuxedOutput:
        """The container with its header; raises what `MuxedOutput` raises."""
        with closing(open_input(io.BytesIO(self.coded), "the coded frame")) as coded:
            return MuxedOutput(target, self.container, coded.streams.video[0], self.facts, beside)

    def packets(self) -> Iterator[Packet[Any]]:
        """The coded frame."""
        with closing(open_input(io.BytesIO(self.coded), "the coded frame")) as coded:
            yield from (packet for packet in coded.demux(video=0) if packet.size)


class _Enough(Exception):
    """Leaves a block whose file is not wanted."""


class _Copy:
    """What comes of copying one stream."""

    def __init__(self, trial: Trial, beside: Beside) -> None:
        self.problem = ""
        """Why it cannot be copied; empty if it can."""
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
        """True if there is nothing in it."""
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
        """There are no more packets: make the file whole, and read a sample back."""
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
        """True if what was written is decoded as the source is."""
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
    """A file that forgets what is written to it."""

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
    """True if a written file is read back with such a stream."""
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
    """The frame in a written file, and the shape of its pixels."""
    file.seek(0)
    with closing(open_input(file, "the trial")) as written:
        video = written.streams.video[0]
        frame = next(iter(written.decode(video)), None)
        return frame, video.sample_aspect_ratio or Fraction(1)


def _decoded(context: AudioCodecContext, packets: Iterator[Packet[Any]]) -> Iterator[AudioFrame]:
    """The frames of what can be decoded."""
    for packet in packets:
        with suppress(av.FFmpegError):
            yield from context.decode(packet)


def _first_sound(path: Path, stream: Stream) -> AudioFrame | None:
    """The first frame of a stream that can be decoded."""
    with closing(open_input(path, str(path))) as source:
        sound = cast(AudioStream, source.streams[stream.index])
        return next(_decoded(sound.codec_context, source.demux(sound)), None)


def _undecodable(path: Path, stream: Stream) -> bool:
    """True if there is a decoder for a stream, and it makes nothing of it."""
    return stream.codec_context is not None and _first_sound(path, stream) is None


def _form(frames: Iterator[AudioFrame]) -> tuple[int, int] | None:
    """Samples a second and channels of the last frame: some decoders find out on the way."""
    form = None
    for frame in frames:
        form = frame.sample_rate, frame.layout.nb_channels
    return form


def _why(error: TrackError) -> str:
    return reason_of(error.__cause__ or error)
