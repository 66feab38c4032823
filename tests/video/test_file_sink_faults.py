"""Clips from outside that were lost, or lost something without a word (../shared/faults)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from ikc_deploy.video.names import is_numbered, is_stream
from tests.video.clips import packets, times
from tests.video.streams import heard, kinds
from tests.video.test_file_sink import opened, upscale


@pytest.mark.parametrize("name", ["out.mp4", "out.ts"])
def test_a_time_stamp_twice(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "faults" / "audio-time-stamp-twice" / "dup.mkv"
    assert upscale(source, tmp_path / name).warnings == ()
    assert len(packets(tmp_path / name, "audio")) == len(packets(source, "audio"))


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.nut"])
def test_sound_without_a_channel_layout(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "faults" / "avi-pcm-sound-to-mp4" / "pcm.avi"
    upscale(source, tmp_path / name)
    before, after = packets(source, "audio"), packets(tmp_path / name, "audio")
    assert b"".join(data for _, data in after) == b"".join(data for _, data in before)


def test_sound_that_a_transport_stream_only_seems_to_take(shared: Path, tmp_path: Path) -> None:
    source = shared / "faults" / "ts-output-loses-sound" / "pcm.mov"
    target = tmp_path / "out.ts"
    with opened(source, target) as sink:
        assert "mpegts cannot hold this pcm_s16le audio" in sink.warnings[0]
    upscale(source, target)
    assert kinds(target) == [("video", "h264"), ("audio", "aac")]
    assert abs(heard(target)[2] - heard(source)[2]) < Fraction(1, 20)


def test_frame_side_data_of_a_newer_ffmpeg(shared: Path, tmp_path: Path) -> None:
    source = shared / "faults" / "frame-side-data-unknown-to-pyav" / "mjpeg-exif.avi"
    assert upscale(source, tmp_path / "out.mp4").frames == 3


def test_a_tag_in_latin_1(shared: Path, tmp_path: Path) -> None:
    source = shared / "faults" / "tag-not-utf8" / "tag.avi"
    upscale(source, tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4") as container:
        assert container.metadata["title"].startswith("Caf\N{REPLACEMENT CHARACTER}")


def test_a_logarithmic_transfer(shared: Path, tmp_path: Path) -> None:
    source = shared / "faults" / "transfer-log-or-reserved" / "tag_log.mp4"
    assert upscale(source, tmp_path / "out.mp4").frames == 4
    with av.open(source) as before, av.open(tmp_path / "out.mp4") as after:
        old, new = (each.streams.video[0].codec_context for each in (before, after))
        assert (new.color_trc, new.color_primaries) == (old.color_trc, old.color_primaries)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_clock_at_20_hours(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "faults" / "ts-clock-starts-at-20-hours" / "late.ts"
    upscale(source, tmp_path / name)
    late = times(source)
    assert times(tmp_path / name) == [time - late[0] for time in late]


def test_alpha_of_vp8_and_vp9(shared: Path, tmp_path: Path) -> None:
    source = shared / "faults" / "webm-alpha-lost-silently" / "alpha.webm"
    outcome = upscale(source, tmp_path / "out.webm", codec="libvpx-vp9")
    assert outcome.warnings == ("the clip has transparency, which is left out",)


def test_a_percent_sign_in_a_name(shared: Path, tmp_path: Path) -> None:
    folder = shared / "faults" / "percent-d-in-output-name"
    assert upscale(folder / "c.mp4", tmp_path / "100%done.mp4").frames == 2
    assert not is_stream([folder / "p.png"], Path("50%discount.png"))
    assert not is_stream([folder / "p.png"], Path("50%5d.png"))
    assert not is_numbered(Path("100%dark.png")) and is_numbered(Path("%06d.png"))
