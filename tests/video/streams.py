"""Clips with audio, subtitles and other streams, and readers of those streams."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from tests.video.clips import numbered, times

RATE = 48000
TONE = 440


def make_clip_with_tone(
    path: Path,
    encoder: str,
    seconds: float = 1.0,
    codec: str = "mpeg4",
    start: Fraction = Fraction(0),
    title: str = "",
) -> Path:
    """Write numbered frames and a tone of `TONE` Hz; both begin at `start` seconds."""
    with av.open(path, "w") as container:
        if title:
            container.metadata["title"] = title
        video: Any = container.add_stream(codec, 25)
        video.width, video.height, video.pix_fmt = 80, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 25)
        sound: Any = container.add_stream(encoder, RATE)
        sound.layout = "stereo"
        coded: list[Any] = []
        for number in range(round(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number + round(25 * start), Fraction(1, 25)
            coded += video.encode(frame.reformat(format="yuv420p"))
        coded += video.encode() + _tone(sound, seconds, start)
        container.mux(sorted(coded, key=_decoded_at))
    return path


def audio_facts(path: Path) -> tuple[str, Fraction, Fraction, int]:
    """Codec of the first sound, when it begins and ends after the first frame, and its pitch."""
    shown = times(path)[0]
    with av.open(path) as container:
        stream = container.streams.audio[0]
        frames: list[Any] = list(container.decode(stream))
        name = stream.codec_context.codec.canonical_name
    first, last, wave = frames[0], frames[-1], []
    for frame in frames:
        samples = frame.to_ndarray()
        step = 1 if frame.format.is_planar else frame.layout.nb_channels
        wave.append(samples[0, ::step])
    middle = np.concatenate(wave).astype(float)
    middle = middle[len(middle) // 2 - 4000 :][:8000]
    spectrum = np.abs(np.fft.rfft((middle - middle.mean()) * np.hanning(len(middle))))
    pitch = int(spectrum.argmax()) * first.sample_rate // len(middle)
    end = last.pts * last.time_base + Fraction(last.samples, last.sample_rate)
    return name, first.pts * first.time_base - shown, end - shown, pitch


def stream_codecs(path: Path) -> list[tuple[str, str]]:
    """Type and codec of every stream."""
    with av.open(path) as container:
        return [
            (stream.type, stream.codec_context.codec.canonical_name)
            for stream in container.streams
            if stream.codec_context is not None
        ]


def subtitles(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    """Begin, length and text of every subtitle, styles and markup left out."""
    found = []
    with av.open(path) as container:
        (stream,) = container.streams.subtitles
        for packet in container.demux(stream):
            shown = stream.codec_context.decode2(packet) if packet.size else None
            for text in shown or ():
                assert packet.pts is not None and packet.duration is not None
                begin, length = packet.pts * packet.time_base, packet.duration * packet.time_base
                words = re.sub(r"\{.*?\}", "", cast(Any, text).dialogue.decode())
                found.append((begin, length, words))
    return found


def with_boxes(clip: bytes, *boxes: bytes) -> bytes:
    """An MP4 of H.264 whose index lies at the end, with boxes added to the video's description."""
    data, new = bytearray(clip), b"".join(boxes)
    at, parents = 0, []
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while bytes(data[at + 4 : at + 8]) != name:
            at += struct.unpack_from(">I", data, at)[0]
        parents.append(at)
        end = at + struct.unpack_from(">I", data, at)[0]
        at += 16 if name == b"stsd" else 8
    data[end:end] = new
    for parent in parents:
        size = struct.unpack_from(">I", data, parent)[0]
        struct.pack_into(">I", data, parent, size + len(new))
    return bytes(data)


def box(kind: bytes, body: bytes) -> bytes:
    """A box of MP4."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_matrix(clip: bytes, matrix: Sequence[int]) -> bytes:
    """An MP4 whose first track has this display matrix."""
    data = bytearray(clip)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    return bytes(data)


def _decoded_at(packet: Any) -> Fraction:
    return packet.dts * packet.time_base


def _tone(stream: Any, seconds: float, start: Fraction) -> list[Any]:
    time = np.arange(round(RATE * seconds)) / RATE
    wave = np.sin(2 * np.pi * TONE * time).astype(np.float32)
    channels = stream.layout.nb_channels
    frame = av.AudioFrame.from_ndarray(np.stack([wave] * channels), "fltp", stream.layout.name)
    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
    frame.pts = round(start * RATE)
    form, layout = stream.format.name, stream.layout.name
    resampler = av.AudioResampler(form, layout, RATE, frame_size=1024)
    coded = []
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        coded += stream.encode(piece)
    return [*coded, *stream.encode()]
