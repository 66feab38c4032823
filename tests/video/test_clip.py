from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ikc_deploy.errors import NoVideoError, UnreadableClipError, VideoError
from ikc_deploy.video.clip import Clip, Span
from tests.samples import photo
from tests.video.clips import TICK, make_clip, make_sound, number_of, numbered


def noisy(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A numbered frame with noise, so that every coded frame takes room."""
    noise = np.random.default_rng(number).integers(0, 40, (48, 80, 3), np.uint8)
    return numbered(number) + noise


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    clip = Clip(make_clip(tmp_path / "in.mp4", map(numbered, range(20))))
    assert (clip.facts.frames, clip.facts.bits) == (20, 8)
    assert clip.facts.rate == 25
    frames = list(clip.frames(skip=5))
    clip.close()
    assert [number_of(frame.rgb) for frame in frames] == list(range(5, 20))
    assert [frame.pts for frame in frames] == [TICK * number for number in range(5, 20)]
    assert clip.warnings == []


def test_a_span_is_found_whatever_key_frames_there_are(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(60)))
    clip = Clip(source, Span(Fraction(1), Fraction(4, 25)))
    assert [number_of(frame.rgb) for frame in clip.frames()] == [25, 26, 27, 28]
    assert clip.facts.frames == 4
    clip.close()
    with pytest.raises(UnreadableClipError, match="has no frames at 9 s or later"):
        Clip(source, Span(Fraction(9)))
    with pytest.raises(VideoError, match="more than 0 seconds"):
        Span(duration=Fraction(0))


@pytest.mark.parametrize(
    ("name", "options"), [("in.mp4", {"movflags": "faststart"}), ("in.mkv", {}), ("in.ts", {})]
)
def test_a_truncated_clip_gives_what_decodes_and_a_warning(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    source = make_clip(tmp_path / name, map(noisy, range(50)), options=options)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    clip = Clip(source)
    shown = [number_of(frame.rgb) for frame in clip.frames()]
    clip.close()
    assert 20 < len(shown) < 40
    assert shown[:20] == list(range(20))
    assert clip.warnings and name in clip.warnings[0]


def test_raw_streams_get_regular_times(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.h264", map(numbered, range(12)))
    clip = Clip(source)
    frames = list(clip.frames())
    clip.close()
    assert [number_of(frame.rgb) for frame in frames] == list(range(12))
    seconds = [frame.pts * clip.facts.time_base for frame in frames]
    assert seconds == [Fraction(number, 25) for number in range(12)]


def test_what_is_no_clip_is_refused_by_name(tmp_path: Path) -> None:
    for name, content in (("empty.mp4", b""), ("text.mp4", b"no clip at all\n" * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableClipError, match=f"{name}' cannot be read as video"):
            Clip(tmp_path / name)
    with pytest.raises(UnreadableClipError, match=r"gone\.mp4"):
        Clip(tmp_path / "gone.mp4")
    make_clip(tmp_path / "in.mp4", [numbered(0)])
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/in.mp4'\n")
    with pytest.raises(UnreadableClipError, match=r"list\.mp4' .*a list of other files"):
        Clip(tmp_path / "list.mp4")
    # Opening a pipe that no process writes to would wait for ever.
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(UnreadableClipError, match="is a pipe or a device"):
            Clip(path)


def test_a_clip_without_video_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    make_sound(path)
    with pytest.raises(NoVideoError, match=r"sound\.mp4' has no video stream, only audio"):
        Clip(path)


def test_video_that_ffmpeg_does_not_know_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mkv", map(numbered, range(2)))
    data = path.read_bytes()
    assert b"V_MPEG4/ISO/AVC" in data
    path.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_UNKNOWN/CODEC"))
    with pytest.raises(NoVideoError, match=r"no decoder for the video in '.*in\.mkv'; convert"):
        Clip(path)


def test_frames_of_another_size_are_resized_to_the_first(tmp_path: Path) -> None:
    scene = photo(96, 160)
    half = np.array(Image.fromarray(scene).resize((80, 48), Image.Resampling.LANCZOS))
    small = make_clip(tmp_path / "small.ts", [half] * 3)
    large = make_clip(tmp_path / "large.ts", [scene] * 3, [3 * TICK, 4 * TICK, 5 * TICK])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    clip = Clip(both)
    frames = [frame.rgb for frame in clip.frames()]
    assert len(frames) >= 5
    for frame in frames:
        assert frame.shape == (48, 80, 3)
        assert np.abs(frame.astype(float) - half).mean() < 6
    (warning,) = clip.warnings
    assert re.search(
        r"changes from 80x48 to 160x96 at 0\.\d\d s; these frames are resized", warning
    )
    clip.close()


def test_empty_packets_repeat_a_frame_and_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "clip.mov"
    whole = make_clip(tmp_path / "whole.mp4", map(numbered, range(6)), codec="mpeg4")
    with av.open(whole) as read, av.open(path, "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.dts is None:
                continue
            made = av.Packet(0) if number in (2, 4, 5) else packet
            made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
            made.duration, made.stream = packet.duration, stream
            written.mux(made)
    clip = Clip(path)
    assert [frame.pts * clip.facts.time_base * 25 for frame in clip.frames()] == [0, 1, 3]
    assert not clip.warnings
    clip.close()
