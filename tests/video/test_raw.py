from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from typing import Any, BinaryIO

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.errors import UnreadableClipError, VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.colour import Colour
from ikc_deploy.video.interfaces import Frame
from ikc_deploy.video.raw import RawFormat, RawSink, open_raw
from tests.video.clips import HEIGHT, WIDTH, facts, number_of, numbered

RGB, Y4M = RawFormat("rgb24", WIDTH, HEIGHT), RawFormat("y4m")


@contextmanager
def pipe(data: bytes, close: bool = True) -> Iterator[BinaryIO]:
    """A pipe with `data` on it, its other end open or closed."""
    reading, writing = os.pipe()
    feeder = threading.Thread(target=feed, args=(writing, data, close))
    feeder.start()
    with open(reading, "rb", buffering=0) as stream:
        yield stream
    feeder.join()
    if not close:
        os.close(writing)


def feed(descriptor: int, data: bytes, close: bool) -> None:
    with open(descriptor, "wb", closefd=close) as stream:
        stream.write(data)


def test_frames_on_a_pipe_come_out_and_half_a_frame_is_a_warning() -> None:
    data = b"".join(numbered(number).tobytes() for number in range(9)) + bytes(1000)
    with pipe(data) as stream:
        clip = open_raw(stream, RGB, Fraction(30), Span(), threading.Event())
        frames = list(clip.frames())
        clip.close()
    assert [number_of(frame.rgb) for frame in frames] == list(range(9))
    np.testing.assert_array_equal(frames[3].rgb, numbered(3))
    seconds = [frame.pts * clip.facts.time_base for frame in frames]
    assert seconds == [Fraction(number, 30) for number in range(9)]
    assert "damaged" in clip.warnings[0]


def test_a_stop_ends_a_pipe_that_is_silent() -> None:
    stop = threading.Event()
    with pipe(numbered(1).tobytes() * 4, close=False) as stream:
        clip = open_raw(stream, RGB, Fraction(25), Span(), stop)
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        assert 1 <= len(list(clip.frames())) <= 4
        clip.close()


@pytest.mark.parametrize(
    "name",
    [
        *("rgb24", "bgr24", "yuv420p", "yuv420p10le", "nv12"),
        *("yuv422p", "yuv444p12le", "p010le", "gray16be", "rgb48be", "gbrp", "gbrpf32le", "bgra"),
    ],
)
def test_what_is_written_can_be_read(name: str) -> None:
    written = BytesIO()
    sink = RawSink(written, name, facts())
    for number in (5, 6):
        sink.write(Frame(numbered(number), number))
    sink.finish(complete=True)
    with pipe(written.getvalue()) as stream:
        raw = RawFormat(name, WIDTH, HEIGHT)
        clip: Clip = open_raw(stream, raw, Fraction(25), Span(), threading.Event())
        frames = [frame.rgb for frame in clip.frames()]
        clip.close()
    assert [number_of(frame) for frame in frames] == [5, 6]
    assert np.abs(frames[0].astype(int) - numbered(5)).max() <= 1


@pytest.mark.parametrize("name", ["rgb24", "bgr24", "gbrp", "gbrp10be", "rgb48be", "bgra", "0rgb"])
def test_colours_are_where_the_format_has_them(name: str) -> None:
    colours = np.array([[[250, 20, 90]]], np.uint8).repeat(HEIGHT, 0).repeat(WIDTH, 1)
    written = BytesIO()
    RawSink(written, name, facts()).write(Frame(colours, 0))
    with pipe(written.getvalue()) as stream:
        raw = RawFormat(name, WIDTH, HEIGHT)
        clip = open_raw(stream, raw, Fraction(25), Span(), threading.Event())
        (frame,) = clip.frames()
        clip.close()
    assert np.abs(frame.rgb.astype(int) - colours).max() <= 1


@pytest.mark.parametrize("name", ["bayer_rggb8", "vaapi", "h264"])
def test_formats_that_cannot_be_written_are_refused_before_the_first_frame(name: str) -> None:
    with pytest.raises(VideoError, match=rf"{name}'.*for example rgb24"):
        RawSink(BytesIO(), name, facts())


CHROMA = {
    "420jpeg": ("420", 8, Fraction(3, 2)),
    "420mpeg2": ("420", 8, Fraction(3, 2)),
    "420paldv": ("420", 8, Fraction(3, 2)),
    "420p10": ("420", 10, Fraction(3)),
    "422": ("422", 8, Fraction(2)),
    "422p12": ("422", 12, Fraction(4)),
    "444": ("444", 8, Fraction(3)),
    "mono": ("420", 8, Fraction(1)),
}
"""Subsampling, bits and bytes per pixel of some values of the chroma field."""


@given(
    size=st.tuples(st.integers(4, 32), st.integers(4, 32)),
    rate=st.fractions(Fraction(1, 10), 1000, max_denominator=1001) | st.none(),
    aspect=st.fractions(Fraction(1, 4), 4, max_denominator=99) | st.none(),
    chroma=st.sampled_from(sorted(CHROMA)),
    scan=st.sampled_from("ptb?"),
    full=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_the_header_of_y4m_is_read(
    size: tuple[int, int],
    rate: Fraction | None,
    aspect: Fraction | None,
    chroma: str,
    scan: str,
    full: bool,
    order: random.Random,
) -> None:
    width, height = (2 * side for side in size)
    subsampling, bits, pixel_bytes = CHROMA[chroma]
    shape = f"A{aspect.numerator}:{aspect.denominator}" if aspect else "A0:0"
    colours = "XCOLORRANGE=FULL" if full else "XCOLORRANGE=LIMITED"
    speed = f"F{rate.numerator}:{rate.denominator}" if rate else "F0:0"
    fields = [f"W{width}", f"H{height}", speed, f"C{chroma}"]
    fields += [f"I{scan}", shape, colours, "XANYTHING"]
    order.shuffle(fields)
    samples = b"FRAME\n" + bytes([60]) * int(width * height * pixel_bytes)
    header = " ".join(["YUV4MPEG2", *fields]).encode()
    with pipe(header + b"\n" + 2 * samples) as stream:
        clip = open_raw(stream, Y4M, Fraction(1), Span(), threading.Event(), "off")
        frames = list(clip.frames())
        clip.close()
    found, expected_rate = clip.facts, rate or Fraction(25)
    assert (found.width, found.height, found.rate) == (width, height, expected_rate)
    assert (found.subsampling, found.bits, found.colour.full_range) == (subsampling, bits, full)
    assert (found.aspect, found.frames) == (aspect or 1, None)
    assert [frame.pts * found.time_base for frame in frames] == [0, 1 / expected_rate]
    interlaced = ["the clip is interlaced: its fields are upscaled as one frame"]
    assert clip.warnings == (interlaced if scan in "tb" else [])


@pytest.mark.parametrize(
    ("stream", "pixel_format", "header"),
    [
        ({}, "yuv420p", "F25:1 Ip A1:1 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED"),
        ({"subsampling": "422", "bits": 12}, "yuv422p10le", "F25:1 Ip A1:1 C422p10"),
        ({"width": 79}, "yuv444p", "C444"),
        (
            {"rate": Fraction(30000, 1001), "aspect": Fraction(4, 3)},
            "yuv420p",
            "F30000:1001 Ip A4:3",
        ),
        ({"colour": Colour(6, True, 6, 6)}, "yuv420p", "XCOLORRANGE=FULL"),
    ],
)
def test_y4m_that_is_written_is_read_by_ffmpeg(
    stream: dict[str, Any], pixel_format: str, header: str
) -> None:
    sent, written = facts(**stream), BytesIO()
    sink = RawSink(written, "y4m", sent)
    images = [np.ascontiguousarray(numbered(number)[:, : sent.width]) for number in (5, 6)]
    for number, image in enumerate(images):
        sink.write(Frame(image, number))
    assert header.encode() in written.getvalue().split(b"\n")[0]
    written.seek(0)
    with av.open(written, "r", format="yuv4mpegpipe") as container:
        video = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        context = video.codec_context
        assert (context.pix_fmt, context.width) == (pixel_format, sent.width)
        assert (context.color_range == 2) == sent.colour.full_range
        assert (video.average_rate, video.sample_aspect_ratio) == (sent.rate, sent.aspect)
    for image, shown in zip(images, decoded, strict=True):
        assert np.abs(shown.astype(int) - image).max() <= 2


def test_y4m_of_ffmpeg_is_read() -> None:
    written = BytesIO()
    with av.open(written, "w", format="yuv4mpegpipe") as container:
        video: Any = container.add_stream("wrapped_avframe", Fraction(24000, 1001))
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv422p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            container.mux(video.encode(frame.reformat(format="yuv422p")))
    with pipe(written.getvalue()) as stream:
        clip = open_raw(stream, Y4M, Fraction(25), Span(), threading.Event())
        assert [number_of(frame.rgb) for frame in clip.frames()] == [0, 1, 2]
        clip.close()
    assert (clip.facts.rate, clip.facts.subsampling) == (Fraction(24000, 1001), "422")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"YUV4MPEG2 W80 H48 F25:1 Cwhat\nFRAME\n" + bytes(5760), "unknown pixel format"),
        (b"YUV4MPEG2 W80 F25:1 C420\nFRAME\n" + bytes(5760), "invalid header"),
        (b"YUV4MPEG2 W80 H48 F25:1 C420\n", "no frame of 'the pipe' can be decoded"),
        (bytes(5760), "cannot be read as video"),
        (b"", "cannot be read as video"),
    ],
)
def test_what_is_no_y4m_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableClipError, match=rf"{reason}.*expects YUV4MPEG2"), pipe(data) as p:
        open_raw(p, Y4M, Fraction(25), Span(), threading.Event())


def test_a_matrix_that_readers_would_not_assume_is_a_warning() -> None:
    hd = facts(1280, 720, colour=Colour(6, False, 6, 6))
    for name in ("y4m", "yuv420p"):
        (warning,) = RawSink(BytesIO(), name, hd).warnings
        assert "its matrix is smpte170m, but bt709 is assumed at 1280x720" in warning
        assert RawSink(BytesIO(), name, facts(720, 576, colour=Colour(6))).warnings == []
    for name in ("rgb24", "gray"):
        assert RawSink(BytesIO(), name, hd).warnings == []


def test_raw_video_needs_a_size_and_a_known_format() -> None:
    with pytest.raises(VideoError, match="give --raw-size WxH"), pipe(b"") as stream:
        open_raw(stream, RawFormat("rgb24"), Fraction(25), Span(), threading.Event())
    with pytest.raises(VideoError, match="invalid pixel format of raw video 'h264'"):
        RawFormat("h264")
    with pytest.raises(VideoError, match="y4m contains the frame size; leave out --raw-size"):
        RawFormat("y4m", WIDTH, HEIGHT)
