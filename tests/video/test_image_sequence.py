from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy.errors import IkcError, InputError, VideoError
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.video.file_sink import FileSink
from ikc_deploy.video.image_sequence import ImageSequence, NumberedImages
from ikc_deploy.video.video_run import upscale_stream
from tests.samples import photo
from tests.video.clips import Repeating, number_of, numbered, numbers, settings, times


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(7):
        write_rgb(numbered(number), tmp_path / "in" / f"{number:03d}.png")
    return tmp_path / "in"


def test_a_folder_becomes_a_clip_of_the_given_rate(folder: Path, tmp_path: Path) -> None:
    source = ImageSequence(folder, Fraction(30000, 1001))
    target = tmp_path / "out.mp4"
    sink = FileSink(settings(target), source.facts.scaled(2), {})
    upscale_stream(source, Repeating(), sink, threading.Event())
    assert numbers(target) == list(range(7))
    assert times(target) == [Fraction(1001 * number, 30000) for number in range(7)]


def test_a_folder_becomes_numbered_images_and_is_resumed(folder: Path, tmp_path: Path) -> None:
    pattern = tmp_path / "out" / "frame%03d.png"
    stop = threading.Event()
    first = Repeating(before=lambda calls: stop.set() if calls == 2 else None)
    source = ImageSequence(folder, Fraction(25))
    assert upscale_stream(source, first, NumberedImages(pattern), stop).frames == 3
    second = Repeating()
    resumed = NumberedImages(pattern, resume=True)
    assert upscale_stream(source, second, resumed, threading.Event()).frames == 7
    assert second.calls == 4
    written = sorted(path.name for path in pattern.parent.iterdir())
    assert written == [f"frame{number:03d}.png" for number in range(1, 8)]
    expected = numbered(6).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read_rgb(pattern.parent / "frame007.png"), expected)


def test_a_pattern_takes_its_numbers_in_order_with_a_warning_for_a_gap(tmp_path: Path) -> None:
    for name in ("f2-x.png", "f10-x.png", "f9-x.png", "f011-x.png", "f11.png", "f3-x.jpg"):
        write_rgb(numbered(int(name[1:].split("-")[0].split(".")[0])), tmp_path / name)
    source = ImageSequence(tmp_path / "f%d-x.png", Fraction(25))
    frames = list(source.frames())
    assert [number_of(frame.rgb) for frame in frames] == [2, 9, 10]
    assert [frame.pts for frame in frames] == [0, 1, 2]
    (warning,) = source.warnings
    assert "f3-x.png' is missing" in warning
    padded = ImageSequence(tmp_path / "f%03d-x.png", Fraction(25))
    assert [number_of(frame.rgb) for frame in padded.frames()] == [11]
    with pytest.raises(InputError, match=r"no image .*%04d\.png', for example .*/0001\.png'"):
        ImageSequence(tmp_path / "gone" / "%04d.png", Fraction(25))


def test_frames_of_two_sizes_are_refused_by_name(folder: Path) -> None:
    write_rgb(photo(10, 10), folder / "004.png")
    with pytest.raises(InputError, match=r"004\.png' has 10x10 pixels, the frames before 80x48"):
        list(ImageSequence(folder, Fraction(25)).frames())


def test_a_name_without_a_number_is_refused(tmp_path: Path) -> None:
    for name in ("frame.png", "a%d-%d.png", "%03d.txt", "100%dark.png"):
        with pytest.raises(VideoError, match="invalid name of numbered images"):
            NumberedImages(tmp_path / name)


def test_pictures_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("n" * 252 + "%d.png", "file/%d.png"):
        with pytest.raises(IkcError, match=r"cannot be written|too long|255 bytes"):
            NumberedImages(tmp_path / name)
    with pytest.raises(InputError):
        NumberedImages(tmp_path / "%d.webp", size=(40, 17000))
    NumberedImages(tmp_path / "%d.png", size=(40, 17000))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
