"""`TrialCopy`: whether a container supports a copy of a stream, tried with all of its packets."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import av
from av.audio.stream import AudioStream

from ikc_deploy.video.opening import open_input
from ikc_deploy.video.output_container import MuxedOutput, TrackError, codec_name
from ikc_deploy.video.passthrough import OpenPassthrough
from ikc_deploy.video.trial_container import TRIAL, TrialContainer, has_stream
from ikc_deploy.video.write_errors import reason_of

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.packet import Packet

SAMPLE_PACKETS: Final = 100
"""Maximum number of packets of a stream that are read back."""

_SAMPLE_BYTES: Final = 4_000_000
"""Limit of the sample of a stream that is read back: some seconds of audio."""


class TrialCopy:
    """A trial copy of one stream, to a file that discards its data.

    Args:
        trial: The container.
        passthrough: The open source, with only the track of the stream.
    """

    def __init__(self, trial: TrialContainer, passthrough: OpenPassthrough) -> None:
        self.problem = ""
        """Reason why the stream cannot be copied; empty if it can."""
        (track,) = passthrough.taken.tracks
        self._stream = passthrough.source.streams[track.index]
        self._trial = trial
        self._passthrough = passthrough
        self._packets = 0
        self._bytes = 0
        self._sample: list[Packet[Any]] = []
        self._output: MuxedOutput | None = None
        if self._stream.codec_context is None and self._stream.type != "attachment":
            self.problem = "FFmpeg has no decoder for it"
            return
        with self._noting_problems():
            output = trial.output(cast(BinaryIO, _NullFile()), passthrough)
            output.put_video(trial.packets())
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
        with self._noting_problems():
            copied = self._output.convert(packet)
            if len(self._sample) < SAMPLE_PACKETS and self._bytes < _SAMPLE_BYTES:
                self._sample += copied
                self._bytes += sum(each.size for each in copied)

    def finish(self) -> None:
        """Finish the file after the last packet, and read a sample back."""
        if self._output is None or self.empty:
            return
        file = io.BytesIO()
        with self._noting_problems():
            self._output.close()
            sample = self._trial.output(file, self._passthrough)
            sample.put_video(self._trial.packets())
            sample.put_converted(self._sample)
            sample.close()
            if not has_stream(file, self._stream.type, codec_name(self._stream)):
                self.problem = "it is read back as something else"
            elif isinstance(self._stream, AudioStream) and not self._is_same_audio(file):
                self.problem = "it does not play from there"

    def _is_same_audio(self, file: io.BytesIO) -> bool:
        """Return whether the written audio has the rate and channels of the source."""
        context = cast(AudioStream, self._stream).codec_context
        expected = _rate_and_channels(decoded_audio(context, iter(self._sample)))
        file.seek(0)
        with closing(open_input(file, TRIAL)) as written:
            (audio,) = written.streams.audio
            found = _rate_and_channels(decoded_audio(audio.codec_context, written.demux(audio)))
        return expected is None or found == expected

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except TrackError as error:
            self.problem = reason_of_track(error)
            if self._output is not None:
                self._output.abandon()


class _NullFile:
    """A file that discards its data."""

    def __init__(self) -> None:
        self._position = self._size = 0

    def write(self, data: bytes) -> int:
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position


def decoded_audio(
    context: AudioCodecContext, packets: Iterator[Packet[Any]]
) -> Iterator[AudioFrame]:
    """Yield the frames of all packets that can be decoded."""
    for packet in packets:
        with suppress(av.FFmpegError):
            yield from context.decode(packet)


def reason_of_track(error: TrackError) -> str:
    """Return the reason of a failure to write a stream or tags."""
    return reason_of(error.__cause__ or error)


def _rate_and_channels(frames: Iterator[AudioFrame]) -> tuple[int, int] | None:
    """Return rate and channels of the last frame; some decoders detect them late."""
    found = None
    for frame in frames:
        found = frame.sample_rate, frame.layout.nb_channels
    return found
