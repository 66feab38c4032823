from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from typing import BinaryIO

import numpy as np
import pytest

from ikc_deploy.errors import VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.interfaces import Frame
from ikc_deploy.video.raw import RawFormat, RawSink, open_raw
from tests.video.clips import HEIGHT, WIDTH, facts, number_of, numbered

RGB = RawFormat("rgb24", WIDTH, HEIGHT)


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


def test_raw_video_needs_a_size_and_a_known_format() -> None:
    with pytest.raises(VideoError, match="give --raw-size WxH"), pipe(b"") as stream:
        open_raw(stream, RawFormat("rgb24"), Fraction(25), Span(), threading.Event())
    with pytest.raises(VideoError, match="invalid pixel format of raw video 'h264'"):
        RawFormat("h264")
