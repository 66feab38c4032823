"""Trial runs of what a container supports, with the real muxer and streams, before any work.

FFmpeg's list of supported codecs is not reliable: some muxers fail when the header is written, at a
packet, or at the end, and MPEG-TS accepts all codecs and writes unknown ones as private data that
no player reads. Therefore everything is written once to a file that discards its data, with one
coded frame instead of the video, and a sample of it is read back.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
from av.audio.stream import AudioStream
from av.subtitles.stream import SubtitleStream

from ikc_deploy.errors import UnreadableClipError, VideoError
from ikc_deploy.files import atomic_path, check_file
from ikc_deploy.video.clip import Clip
from ikc_deploy.video.clocks import Trim
from ikc_deploy.video.encoders import Encoder, coded_frame
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.names import container_of
from ikc_deploy.video.opening import open_input
from ikc_deploy.video.output_container import TrackError, codec_name
from ikc_deploy.video.passthrough import OpenPassthrough, Passthrough, find_jumps
from ikc_deploy.video.sidedata import display_matrix, same_turn, side_data_names
from ikc_deploy.video.subtitle_tracks import SubtitleEncoding, subtitle_encodings
from ikc_deploy.video.tracks import COPIED, TIMECODE, AudioEncoding, Track, audio_encodings
from ikc_deploy.video.trial_container import ReadBack, TrialContainer, has_stream, read_back
from ikc_deploy.video.trial_copy import (
    SAMPLE_PACKETS,
    TrialCopy,
    decoded_audio,
    reason_of_track,
)
from ikc_deploy.video.write_errors import explained, writing

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.stream import Stream


def check_output(
    target: Path, encoder: Encoder, facts: StreamFacts, clip: Clip | None = None
) -> tuple[Passthrough | None, list[str]]:
    """Try to write everything that the output will contain.

    Args:
        target: The video file to write.
        encoder: Its encoder.
        facts: Properties of the output.
        clip: The source clip; None for other sources. It is read to its end.

    Returns:
        What to take from the clip (None without a clip), and a sentence for each part that the
        output will lack or that is changed.

    Raises:
        VideoError: The output cannot be written, or the clip has audio, but none of it can be
            copied or re-encoded.
        OutputError: No file can be written at `target`.
        DiskFullError: The disk is full.
    """
    with writing(target):
        coded = coded_frame(encoder, facts)
    trial = TrialContainer(container_of(target), coded, facts)
    if clip is None:
        _try_header(target, trial)
        return None, []
    path, origin = Path(clip.name), clip.origin * clip.facts.time_base
    trim = Trim(origin, origin if clip.span.start > 0 else None)
    everything = Passthrough(path, trim=trim, jumps=find_jumps(path))
    with explained(), everything.opened() as source:
        planned = _TrackPlan(trial, source)
        planned.check_video(clip.side_data)
    _try_header(target, trial, planned.passthrough)
    if facts.hdr is not None and not facts.hdr.options(encoder.name):
        planned.warnings.append(
            "the clip's HDR metadata (mastering display, light levels) is left out: "
            f"{encoder.name} does not write it; libx265 and libsvtav1 do"
        )
    return planned.passthrough, planned.warnings


def _try_header(
    target: Path, trial: TrialContainer, passthrough: Passthrough | None = None
) -> None:
    """Write the header with all streams to a file beside `target`, and delete it."""
    check_file(target)
    with explained(), writing(target), suppress(_Discard), atomic_path(target) as temporary:
        if passthrough is None:
            trial.output(temporary).abandon()
            raise _Discard
        with passthrough.opened() as source:
            try:
                trial.output(temporary, source).abandon()
            except TrackError as error:
                raise error.__cause__ or error from error
        raise _Discard


class _Discard(Exception):
    """A signal to leave a block and discard its file."""


class _TrackPlan:
    """The streams, tags and chapters that an output takes from a clip, found by trial.

    Audio and text subtitles that cannot be copied are re-encoded.
    """

    def __init__(self, trial: TrialContainer, source: OpenPassthrough) -> None:
        self.warnings: list[str] = []
        self._trial = trial
        self._source = source
        self._tags = True
        self._tracks: list[Track] = []
        copies = self._copies()
        for stream in source.source.streams:
            if stream.index != source.video.index:
                self._decide(stream, copies.get(stream.index))
        self._check_audio(copies)

    @property
    def passthrough(self) -> Passthrough:
        """What the output takes."""
        return replace(self._source.taken, tracks=tuple(self._tracks), tags=self._tags)

    def _copies(self) -> dict[int, TrialCopy]:
        """Copy all streams of the types in `COPIED`, each into a separate output."""
        streams = [stream for stream in self._source.source.streams if stream.type in COPIED]
        tracks = [Track(stream.index) for stream in streams]
        copies = {
            track.index: TrialCopy(self._trial, self._source.only([track])) for track in tracks
        }
        for packet in self._source.only(tracks).packets():
            copies[packet.stream.index].take(packet)
        for copy in copies.values():
            copy.finish()
        return copies

    def _decide(self, stream: Stream, copy: TrialCopy | None) -> None:
        """Copy, re-encode or omit a stream."""
        name, container = codec_name(stream), self._trial.format
        omitted = f"stream {stream.index} is left out: {stream.type}, {name}"
        if copy is None:
            # A timecode track is written again from the tag, which `check_video` checks.
            if self._source.timecode is None or not _is_timecode(stream):
                self.warnings.append(omitted)
        elif copy.empty:
            self.warnings.append(f"{omitted}, which has no packets")
        elif not copy.problem:
            self._tracks.append(Track(stream.index))
        elif (encoding := self._encoding(stream)) is not None:
            self._tracks.append(Track(stream.index, encoding))
            self.warnings.append(
                f"stream {stream.index} is re-encoded as {encoding.encoder}: {container} does not "
                f"support this {name} {stream.type} ({copy.problem})"
            )
        else:
            self.warnings.append(f"{omitted}, which {container} does not support ({copy.problem})")

    def _check_audio(self, copies: dict[int, TrialCopy]) -> None:
        """Raise `VideoError` if all audio that can be decoded would be omitted."""
        kept = {track.index for track in self._tracks}
        streams = self._source.source.streams.audio
        if kept.intersection(stream.index for stream in streams):
            return
        lost = [
            stream
            for stream in streams
            # Audio that cannot be decoded is lost already.
            if not copies[stream.index].empty and not self._is_undecodable(stream)
        ]
        if lost:
            raise VideoError(
                f"{self._trial.format} does not support {codec_name(lost[0])} audio "
                f"({copies[lost[0].index].problem}), and it cannot be re-encoded; remove the "
                "audio first: ffmpeg -i CLIP -map 0 -map -0:a -c copy SILENT.mkv"
            )

    def check_video(self, side_data: frozenset[str]) -> None:
        """Add warnings for tags, rotation and pixel shape that the container does not support.

        Args:
            side_data: Names of the side data of the clip's frames.
        """
        file = io.BytesIO()
        try:
            self._trial.output(file, self._source.only([], tags=True)).write(self._trial.packets())
        except TrackError as error:
            self._tags = False
            self.warnings.append(f"tags and chapters are left out ({reason_of_track(error)})")
            file = io.BytesIO()
            self._trial.output(file).write(self._trial.packets())
        try:
            written = read_back(file)
        except UnreadableClipError:
            return  # Too short to be recognised; `choose_encoder` has read its own trial back.
        self.warnings += _lost_display(self._trial, written)
        if "STEREO3D" in side_data - side_data_names(written.frame):
            self.warnings.append(
                "the clip is stereoscopic (3D); the output is not marked as such, and players show "
                "its views as one frame"
            )
        self._check_timecode(written)

    def _check_timecode(self, written: ReadBack) -> None:
        """Add a warning if the timecode is lost; one that starts at zero has no information."""
        timecode = self._source.timecode or ""
        if not timecode.strip("0:;."):
            return
        if self._source.taken.trim.begin is not None:
            self.warnings.append(
                f"the timecode is left out: {timecode} is that of the clip's first frame, and the "
                "part begins later"
            )
        elif TIMECODE not in written.tags:
            self.warnings.append(
                f"the timecode {timecode} is left out, which {self._trial.format} does not support"
            )

    def _encoding(self, stream: Stream) -> AudioEncoding | SubtitleEncoding | None:
        """Return an encoding of audio or text that the container supports, or None."""
        for encoding in self._encodings(stream):
            if self._is_supported(Track(stream.index, encoding), encoding.encoder):
                return encoding
        return None

    def _encodings(self, stream: Stream) -> Iterator[AudioEncoding | SubtitleEncoding]:
        if isinstance(stream, SubtitleStream):
            yield from subtitle_encodings(stream, self._trial.format)
        elif isinstance(stream, AudioStream) and stream.codec_context is not None:
            frame = self._first_audio(stream)
            if frame is not None:
                yield from audio_encodings(stream, frame, self._trial.format)

    def _is_supported(self, track: Track, encoder: str) -> bool:
        """Return whether the first packets of a re-encoded track can be written and read back."""
        file = io.BytesIO()
        with replace(self._source.taken, tracks=(track,), tags=False).opened() as source:
            try:
                output = self._trial.output(file, source)
                output.put_video(self._trial.packets())
                for packet in islice(source.packets(), SAMPLE_PACKETS):
                    output.convert(packet)
                output.flush()
                output.close()
            except TrackError:
                return False
        codec = av.Codec(encoder, "w")
        return has_stream(file, codec.type, codec.canonical_name)

    def _first_audio(self, stream: Stream) -> AudioFrame | None:
        """Return the first frame of an audio stream that can be decoded; None if there is none."""
        path = self._source.taken.path
        with closing(open_input(path, str(path))) as source:
            audio = cast(AudioStream, source.streams[stream.index])
            return next(decoded_audio(audio.codec_context, source.demux(audio)), None)

    def _is_undecodable(self, stream: Stream) -> bool:
        """Return whether there is a decoder for a stream, but it decodes no frame."""
        return stream.codec_context is not None and self._first_audio(stream) is None


def _is_timecode(stream: Stream) -> bool:
    return stream.type == "data" and any(name.lower() == TIMECODE for name in stream.metadata)


def _lost_display(trial: TrialContainer, written: ReadBack) -> Iterator[str]:
    """Yield warnings for rotation and pixel shape that a written file does not have."""
    facts = trial.facts
    if not same_turn(display_matrix(written.frame), facts.display_matrix):
        yield (
            f"{trial.format} does not store that the video is rotated or flipped; players show it "
            "as it is coded"
        )
    if abs(written.aspect / facts.aspect - 1) > 0.01:
        yield (
            f"{trial.format} does not store that pixels are {float(facts.aspect):.3g} times as "
            "wide as high; players show them square"
        )
