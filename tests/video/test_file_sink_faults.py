"""Clips from outside that were lost, or lost something without a word (../shared/faults)."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.video.clips import packets
from tests.video.test_file_sink import upscale


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.nut"])
def test_sound_without_a_channel_layout(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "faults" / "avi-pcm-sound-to-mp4" / "pcm.avi"
    upscale(source, tmp_path / name)
    before, after = packets(source, "audio"), packets(tmp_path / name, "audio")
    assert b"".join(data for _, data in after) == b"".join(data for _, data in before)


def test_a_logarithmic_transfer(shared: Path, tmp_path: Path) -> None:
    source = shared / "faults" / "transfer-log-or-reserved" / "tag_log.mp4"
    assert upscale(source, tmp_path / "out.mp4").frames == 4
    with av.open(source) as before, av.open(tmp_path / "out.mp4") as after:
        old, new = (each.streams.video[0].codec_context for each in (before, after))
        assert (new.color_trc, new.color_primaries) == (old.color_trc, old.color_primaries)


def test_alpha_of_vp8_and_vp9(shared: Path, tmp_path: Path) -> None:
    source = shared / "faults" / "webm-alpha-lost-silently" / "alpha.webm"
    outcome = upscale(source, tmp_path / "out.webm", codec="libvpx-vp9")
    assert outcome.warnings == ("the clip has transparency, which is left out",)
