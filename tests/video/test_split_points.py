from __future__ import annotations

import threading
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ikc_deploy.video.clip import Clip
from ikc_deploy.video.file_sink import FileSink
from ikc_deploy.video.interfaces import Frame
from ikc_deploy.video.split_points import split_ranges
from ikc_deploy.video.video_run import upscale_stream
from tests.samples import photo
from tests.video.clips import TICK, Repeating, make_clip, settings

CLOSED = {"g": "20", "sc_threshold": "0"}
OPEN_264 = {"x264-params": "open-gop=1:keyint=20:scenecut=0:bframes=3"}
OPEN_265 = {"x265-params": "open-gop=1:keyint=20:scenecut=0:bframes=3:log-level=error"}
UNEVEN = list(accumulate((TICK * (1 + number % 3) for number in range(1, 70)), initial=4 * TICK))


def moving(count: int) -> list[Any]:
    """Frames that need each other to be decoded."""
    wide = photo(48, 80 + 2 * count)
    return [np.ascontiguousarray(wide[:, 2 * left : 2 * left + 80]) for left in range(count)]


def decoded(clip: Clip) -> list[Frame]:
    with closing(clip):
        return list(clip.frames())


@pytest.mark.parametrize(
    ("name", "codec", "coding", "pts"),
    [
        ("closed.mp4", "libx264", CLOSED, None),
        ("open.mp4", "libx264", OPEN_264, None),
        ("open.mkv", "libx264", OPEN_264, None),
        ("open.ts", "libx264", OPEN_264, None),
        ("hevc.mp4", "libx265", OPEN_265, None),
        ("uneven.mp4", "libx264", CLOSED, UNEVEN),
        ("intra.mkv", "ffv1", {}, None),
    ],
)
def test_the_pieces_have_the_frames_and_times_of_the_whole(
    tmp_path: Path, name: str, codec: str, coding: dict[str, str], pts: list[int] | None
) -> None:
    path = make_clip(tmp_path / name, moving(70), pts, codec=codec, coding=coding)
    with closing(Clip(path)) as clip:
        pieces = split_ranges(clip, 15)
    whole = decoded(Clip(path))
    parts = [decoded(Clip(path, clip_range=piece)) for piece in pieces]
    assert len(pieces) > 2
    assert [piece.packets for piece in pieces] == list(map(len, parts))
    for ours, expected in zip([frame for part in parts for frame in part], whole, strict=True):
        assert ours.pts == expected.pts
        np.testing.assert_array_equal(ours.rgb, expected.rgb)


def test_pieces_are_as_long_as_asked_and_begin_at_key_frames(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", moving(70), coding=CLOSED)
    with av.open(path) as container:
        keys = [packet.pts for packet in container.demux(video=0) if packet.is_keyframe]
    with closing(Clip(path)) as clip:
        assert [piece.begin for piece in split_ranges(clip, 20)] == [None, *keys[1:4]]
        assert [piece.begin for piece in split_ranges(clip, 21)] == [None, keys[2]]
        assert len(split_ranges(clip, 61)) == 1


def test_a_stream_without_time_stamps_is_one_piece(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.h264", moving(45), coding=CLOSED)
    with closing(Clip(path)) as clip:
        (piece,) = split_ranges(clip, 15)
    assert len(decoded(Clip(path, clip_range=piece))) == 45


@pytest.mark.parametrize(
    ("gop", "begins"), [(20, [0, 10, 20, 30, 40]), (17, [0, 10, 17, 27, 34, 44])]
)
def test_the_output_has_key_frames_where_the_input_can_be_cut(
    tmp_path: Path, gop: int, begins: list[int]
) -> None:
    """So that it is the same whether it was cut or not. Its own pieces have ten frames."""
    coding = {"g": str(gop), "sc_threshold": "0"}
    path = make_clip(tmp_path / "in.mp4", moving(50), coding=coding)
    target = tmp_path / "out.mp4"
    with closing(Clip(path)) as clip:
        sink = FileSink(settings(target), clip.facts.scaled(2), {}, clip)
        upscale_stream(clip, Repeating(2), sink, threading.Event())
    with av.open(target) as container:
        frames = enumerate(container.decode(video=0))
        assert [number for number, frame in frames if frame.key_frame] == begins
