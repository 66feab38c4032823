"""Clips whose container has no presentation times, and clips that lost packets."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from ikc_deploy.video.clip import Clip, Span
from tests.video.clips import make_clip, number_of, numbered

COUNT = 40


def shown(path: Path, span: Span | None = None) -> tuple[list[int], list[int]]:
    """The numbers that frames show, and their times in frames at 25 a second."""
    with closing(Clip(path, span)) as clip:
        step = Fraction(1, 25) / Fraction(clip.facts.time_base)
        frames = [(number_of(frame.rgb), frame.pts) for frame in clip.frames()]
    assert all(pts % step == 0 for _, pts in frames)
    return [number for number, _ in frames], [int(pts / step) for _, pts in frames]


def with_b_frames(path: Path, codec: str = "libx264") -> Path:
    coding = {"bf": "3", "g": "15", "b_strategy": "0"}
    if codec == "mpeg4":
        coding["qscale"] = "2"
    pts = [512 * number for number in range(COUNT)]
    return make_clip(path, map(numbered, range(COUNT)), pts, codec=codec, coding=coding)


def remuxed(source: Path, target: Path, lost: tuple[int, ...] = (), ticks: Any = None) -> Path:
    """Copy the packets of a clip without some of them."""
    with av.open(source) as read, av.open(target, "w") as written:
        stream: Any = written.add_stream_from_template(read.streams.video[0])
        if ticks is not None:
            stream.time_base = ticks
            stream.codec_context.framerate = 1 / ticks
        for number, packet in enumerate(read.demux(video=0)):
            if packet.dts is None or number in lost:
                continue
            if ticks is not None:
                packet.dts, packet.pts, packet.time_base = number, None, ticks
            packet.stream = stream
            written.mux(packet)
    return target


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_of_avi_are_evenly_spaced_in_spite_of_b_frames(tmp_path: Path, codec: str) -> None:
    clip = with_b_frames(tmp_path / "clip.ts", codec)
    avi = remuxed(clip, tmp_path / "clip.avi", ticks=Fraction(1, 25))
    numbers, times = shown(avi)
    assert numbers == list(range(COUNT))
    assert times == list(range(COUNT))


def test_a_part_of_an_avi_has_the_frames_that_the_whole_has_at_these_times(tmp_path: Path) -> None:
    clip = with_b_frames(tmp_path / "clip.ts")
    avi = remuxed(clip, tmp_path / "clip.avi", ticks=Fraction(1, 25))
    part, _ = shown(avi, Span(Fraction(20, 25), Fraction(12, 25)))
    assert part == list(range(20, 32))


@pytest.mark.parametrize("lost", [(5, 6), (17, 30), (38,)])
def test_lost_packets_leave_the_times_of_other_frames(
    tmp_path: Path, lost: tuple[int, ...]
) -> None:
    clip = with_b_frames(tmp_path / "clip.mp4")
    cut = remuxed(clip, tmp_path / "cut.mkv", lost)
    with av.open(cut) as container:
        expected = [frame.time for frame in container.decode(video=0)]
    with closing(Clip(cut)) as source:
        times = [float(frame.pts * source.facts.time_base) for frame in source.frames()]
    assert times == pytest.approx(expected)


def test_a_part_is_read_from_the_start_where_a_container_seeks_too_far(tmp_path: Path) -> None:
    clip = with_b_frames(tmp_path / "clip.ts")
    whole, _ = shown(clip)
    for first in (1, 7, 16, 31):
        part, _ = shown(clip, Span(Fraction(first, 25), Fraction(3, 25)))
        assert part == whole[first : first + 3]
