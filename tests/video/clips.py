"""Clips that the tests make, with frames that know their number, and a cheap upscaler."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.pipeline import CAPACITY, Pipeline, PipelineRun, RunSettings
from ikc_deploy.video.colour import Colour, FromRgb
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.file_sink import FileSettings
from ikc_deploy.video.interfaces import Frame, Source, StreamFacts

WIDTH, HEIGHT = 80, 48
BITS = 10
TIME_BASE = Fraction(1, 12800)
TICK = 512
"""One frame at 25 a second."""


CHAPTERS: list[Any] = [
    {"id": 1, "start": 0, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "A"}},
    {"id": 2, "start": 300, "end": 480, "time_base": Fraction(1, 1000), "metadata": {"title": "B"}},
]
"""What clips with subtitles have."""


class Repeating:
    """Repeats pixels; calls `before` with the number of calls so far."""

    def __init__(self, scale: int = 2, before: Any = None) -> None:
        self.scale = scale
        self.calls = 0
        self._before = before

    def output_facts(self, source: Source) -> StreamFacts:
        return source.facts.scaled(self.scale)

    @contextmanager
    def run(
        self, source: Source, skip: int, live: bool, stop: threading.Event
    ) -> Iterator[PipelineRun[Frame]]:
        settings = RunSettings("newest" if live else "ahead", CAPACITY, stop)
        with (
            Pipeline([self._repeated], CAPACITY) as pipeline,
            pipeline.run(source.frames(skip), _same, settings) as run,
        ):
            yield run

    def _repeated(self, frame: Frame) -> Frame:
        if self._before is not None:
            self._before(self.calls)
        self.calls += 1
        return Frame(frame.rgb.repeat(self.scale, axis=0).repeat(self.scale, axis=1), frame.pts)


def _same(frame: Frame) -> Frame:
    return frame


def numbered(number: int) -> NDArray[np.uint8]:
    """A frame that shows `number` in binary, as dark and light stripes."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)])
    row = np.where(bits, 200, 50).repeat(WIDTH // BITS)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)


def number_of(rgb: NDArray[Any]) -> int:
    """The number that such a frame shows, at any scale."""
    stripes = rgb.mean(axis=(0, 2)).reshape(BITS, -1).mean(axis=1)
    return int(sum(1 << bit for bit, level in enumerate(stripes) if level > 125))


def numbers(path: Path) -> list[int]:
    """The numbers that a clip's frames show, in order."""
    with av.open(path) as container:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    """When a clip's frames are shown, in seconds."""
    with av.open(path) as container:
        decoded: Iterable[Any] = container.decode(video=0)
        return [frame.pts * frame.time_base for frame in decoded]


def packets(path: Path, kind: str, index: int = 0) -> list[tuple[Fraction, bytes]]:
    """Times in seconds and contents of the packets of a stream."""
    with av.open(path) as container:
        stream = container.streams.get({kind: index})[0]
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.pts is not None
        ]


def make_clip(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    pts: Sequence[int] | None = None,
    *,
    colour: Colour | None = None,
    pixel_format: str = "yuv420p",
    codec: str = "libx264",
    aspect: Fraction | None = None,
    rotation: int = 0,
    audio: bool = False,
    subtitles: Sequence[tuple[int, str]] = (),
    tags: dict[str, str] | None = None,
    tagged: bool = True,
    options: dict[str, str] | None = None,
    coding: dict[str, str] | None = None,
) -> Path:
    """Write a nearly lossless clip; `pts` in `TIME_BASE`, else 25 frames a second.

    `options` are the container's, `coding` the encoder's.
    """
    pictures = list(frames)
    with av.open(path, "w", container_options=options or {}) as container:
        container.metadata.update(tags or {})
        settings = ({"crf": "4", "bf": "2"} if codec == "libx264" else {}) | (coding or {})
        video: Any = container.add_stream(codec, 25, options=settings)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt, video.codec_context.time_base = pixel_format, TIME_BASE
        video.time_base = TIME_BASE
        if tagged and colour is not None:
            facts(colour=colour).tag(video.codec_context)
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        sound: Any = container.add_stream("aac", 16000) if audio else None
        text = _add_text(container) if subtitles else None
        from_rgb = FromRgb(colour or Colour(), pixel_format)
        stamps = pts or range(0, len(pictures) * TICK, TICK)
        coded = []
        for picture, time in zip(pictures, stamps, strict=False):
            coded += video.encode(_stamped(from_rgb(picture), time, tagged))
        coded += video.encode()
        coded += [] if sound is None else _tone(sound, len(pictures) / 25)
        coded += [_text_packet(text, *subtitle) for subtitle in subtitles]
        container.mux(sorted(coded, key=_decoded_at))
    return path


def _stamped(frame: Any, time: int, tagged: bool) -> Any:
    frame.pts, frame.time_base = time, TIME_BASE
    if not tagged:
        frame.colorspace = frame.color_primaries = frame.color_trc = 2
        frame.color_range = 0
    return frame


def _add_text(container: Any) -> Any:
    """Add a stream of subtitles, chapters and an attachment."""
    text = container.add_mux_stream("subrip")
    text.time_base = Fraction(1, 1000)
    container.set_chapters(CHAPTERS)
    container.add_attachment("font.ttf", "application/x-truetype-font", b"no font")
    return text


def _text_packet(stream: Any, milliseconds: int, line: str) -> Any:
    packet = av.Packet(line.encode())
    packet.pts = packet.dts = milliseconds
    packet.time_base, packet.duration, packet.stream = Fraction(1, 1000), 500, stream
    return packet


def make_sound(path: Path) -> None:
    """Write a clip without pictures."""
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("aac", 16000)
        container.mux(_tone(stream, 1))


def _decoded_at(packet: Any) -> Fraction:
    return packet.dts * packet.time_base


def _tone(stream: Any, seconds: float) -> list[Any]:
    wave = np.sin(np.arange(int(16000 * seconds)) / 8, dtype=np.float32)[None]
    frame = av.AudioFrame.from_ndarray(np.concatenate([wave, wave]), "fltp", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
    return [*stream.encode(frame), *stream.encode()]


def settings(
    target: Path, codec: str = "libx264", crf: float | None = 4, resume: bool = False
) -> FileSettings:
    """Near lossless, in short pieces."""
    return FileSettings(target, EncoderSettings(codec, crf), resume, chunk_frames=10)


def facts(width: int = WIDTH, height: int = HEIGHT, **changes: Any) -> StreamFacts:
    """Facts of a plain stream."""
    plain = StreamFacts(width, height, TIME_BASE, Fraction(25), Colour())
    return replace(plain, **changes)
