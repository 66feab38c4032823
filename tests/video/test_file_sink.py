from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.errors import InputError, VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.colour import Colour
from ikc_deploy.video.file_sink import FileSink
from ikc_deploy.video.interfaces import FrameUpscaler
from ikc_deploy.video.mux import decode_times
from ikc_deploy.video.video_run import VideoReport, upscale_stream
from tests.samples import photo
from tests.video.clips import (
    CHAPTERS,
    TIME_BASE,
    Repeating,
    make_clip,
    number_of,
    numbered,
    numbers,
    packets,
    settings,
    times,
)


def upscale(
    source: Path,
    target: Path,
    upscaler: FrameUpscaler | None = None,
    span: Span | None = None,
    stop: threading.Event | None = None,
    **changes: Any,
) -> VideoReport:
    worker = upscaler or Repeating()
    clip = Clip(source, span)
    try:
        sink = FileSink(settings(target, **changes), worker.output_facts(clip), {}, clip)
        return upscale_stream(clip, worker, sink, stop or threading.Event())
    finally:
        clip.close()


@contextmanager
def opened(source: Path, target: Path) -> Iterator[FileSink]:
    """A sink that is opened, and closed again without a frame."""
    clip = Clip(source)
    sink = FileSink(settings(target), clip.facts.scaled(2), {}, clip)
    try:
        yield sink
    finally:
        sink.abort()
        clip.close()


def video_of(path: Path) -> Any:
    with av.open(path) as container:
        return container.streams.video[0]


def left_beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path.name != "in.mp4")


def test_frames_times_sound_and_tags_come_through(tmp_path: Path) -> None:
    pts = np.cumsum(np.random.default_rng(0).integers(100, 3000, 35)).tolist()
    source = make_clip(
        tmp_path / "in.mp4",
        map(numbered, range(35)),
        pts,
        audio=True,
        aspect=Fraction(4, 3),
        rotation=90,
        tags={"title": "A clip", "artist": "Nobody"},
        options={"movie_timescale": "64000"},
    )
    target = tmp_path / "out.mp4"
    outcome = upscale(source, target)
    assert (outcome.frames, outcome.interrupted, outcome.warnings) == (35, False, ())
    assert numbers(target) == list(range(35))
    assert times(target) == times(source) == [tick * TIME_BASE for tick in pts]
    assert packets(target, "audio") == packets(source, "audio")
    assert left_beside(target) == ["out.mp4"]
    with av.open(target) as container:
        video = container.streams.video[0]
        frame = next(container.decode(video))
        assert (frame.width, frame.height, frame.rotation) == (160, 96, 90)
        assert video.sample_aspect_ratio == Fraction(4, 3)
        assert container.metadata["title"] == "A clip"
        assert container.metadata["artist"] == "Nobody"


def test_subtitles_attachments_and_chapters_are_copied(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mkv",
        map(numbered, range(12)),
        audio=True,
        subtitles=[(0, "one"), (200, "two")],
        aspect=Fraction(8, 9),
        rotation=180,
    )
    target = tmp_path / "out.mkv"
    upscale(source, target)
    assert packets(target, "subtitles") == packets(source, "subtitles")
    assert packets(target, "audio") == packets(source, "audio")
    assert times(target) == times(source)
    with av.open(target) as container:
        (attachment,) = container.streams.attachments
        assert (attachment.name, attachment.data) == ("font.ttf", b"no font")
        assert spans(container.chapters()) == spans(CHAPTERS)
        assert container.streams.video[0].sample_aspect_ratio == Fraction(8, 9)
        assert abs(next(container.decode(video=0)).rotation) == 180


def test_what_a_container_does_not_support_is_reported_before_the_run(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", [numbered(0)] * 3, audio=True, subtitles=[(0, "one")])
    with opened(source, tmp_path / "out.ts") as sink:
        subtitle, attachment = sink.warnings
    assert "stream 2 is left out: subtitle, subrip, which mpegts does not support" in subtitle
    assert "stream 3 is left out: attachment" in attachment
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def spans(chapters: Any) -> list[tuple[Any, ...]]:
    """Begin, end and title, in seconds."""
    return [
        (
            each["start"] * each["time_base"],
            each["end"] * each["time_base"],
            each["metadata"]["title"],
        )
        for each in chapters
    ]


@pytest.mark.parametrize(
    ("colour", "pixel_format"),
    [
        (Colour(6, False, 6, 6), "yuv420p"),
        (Colour(1, False, 1, 1), "yuv422p"),
        (Colour(1, True, 1, 1), "yuv420p"),
        (Colour(9, False, 9, 16), "yuv420p10le"),
    ],
)
def test_colour_is_kept_and_tagged(tmp_path: Path, colour: Colour, pixel_format: str) -> None:
    picture = photo(64, 96)
    source = make_clip(tmp_path / "in.mp4", [picture] * 3, colour=colour, pixel_format=pixel_format)
    target = tmp_path / "out.mp4"
    upscale(source, target)
    coded = video_of(target).codec_context
    assert coded.pix_fmt.replace("yuvj", "yuv") == pixel_format
    assert (coded.colorspace, coded.color_primaries) == (colour.matrix, colour.primaries)
    assert (coded.color_trc, coded.color_range) == (colour.transfer, 2 if colour.full_range else 1)
    clip = Clip(target)
    assert clip.facts.colour == colour
    frame = next(clip.frames()).rgb
    clip.close()
    reference = picture.mean(axis=(0, 1))
    assert np.abs(frame.mean(axis=(0, 1)) - reference).max() < 0.5


def test_an_untagged_sd_clip_becomes_a_tagged_hd_one_with_its_own_matrix(tmp_path: Path) -> None:
    colour = Colour(6, False, 6, 6)
    picture = photo(480, 640)
    source = make_clip(tmp_path / "in.mp4", [picture], colour=colour, tagged=False)
    assert video_of(source).codec_context.colorspace == 2
    upscale(source, tmp_path / "out.mp4")
    coded = video_of(tmp_path / "out.mp4").codec_context
    assert (coded.width, coded.height) == (1280, 960)
    assert (coded.colorspace, coded.color_range, coded.color_primaries) == (6, 1, 6)
    with av.open(tmp_path / "out.mp4") as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    # FFmpeg's own conversion, which goes by the tags.
    assert np.abs(shown.mean(axis=(0, 1)) - picture.mean(axis=(0, 1))).max() < 1.5


@pytest.mark.parametrize(
    ("codec", "name"), [("hevc", "out.mp4"), ("vp9", "out.webm"), ("ffv1", "out.mkv")]
)
def test_other_codecs_and_containers_keep_frames_and_times(
    tmp_path: Path, codec: str, name: str
) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(13)))
    target = tmp_path / name
    upscale(source, target, codec=codec, crf=None if codec == "ffv1" else 4)
    assert numbers(target) == list(range(13))
    assert times(target) == times(source)
    if codec == "hevc":
        assert video_of(target).codec_context.codec_tag == "hvc1"


def test_a_frame_without_a_rate_is_shown_for_a_frame_of_the_default_rate(tmp_path: Path) -> None:
    """FFmpeg takes the clock of the container, a millionth of a second, for its duration."""
    source = tmp_path / "in.nut"
    with av.open(source, "w") as container:
        stream: Any = container.add_stream("ffv1", 10**6)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(numbered(3), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 10**6)
        container.mux([*stream.encode(frame), *stream.encode()])
    upscale(source, tmp_path / "out.mp4")
    video = video_of(tmp_path / "out.mp4")
    assert video.duration * video.time_base == Fraction(1, 25)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.ts"])
def test_a_clip_of_one_frame(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / "in.mp4", [numbered(3)])
    assert upscale(source, tmp_path / name).frames == 1
    assert numbers(tmp_path / name) == [3]
    assert times(tmp_path / name) == [Fraction(0)]


def test_a_part_begins_at_zero_with_its_own_sound(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(100)), audio=True)
    target = tmp_path / "out.mp4"
    upscale(source, target, span=Span(Fraction(2), Fraction(1, 2)))
    assert numbers(target) == list(range(50, 63))
    assert times(target) == [Fraction(number, 25) for number in range(13)]
    copied = packets(target, "audio")
    wanted = [
        (time - 2, data) for time, data in packets(source, "audio") if 2 <= time < 2 + 13 / 25
    ]
    assert copied == wanted


def test_a_stop_leaves_a_playable_file_that_can_be_resumed(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(40)), audio=True)
    target = tmp_path / "out.mp4"
    stop = threading.Event()
    first = Repeating(before=lambda calls: stop.set() if calls == 16 else None)
    outcome = upscale(source, target, first, stop=stop)
    assert (outcome.frames, outcome.interrupted) == (17, True)
    assert numbers(target) == list(range(17))
    assert max(time for time, _ in packets(target, "audio")) < 17 / 25
    assert left_beside(target) == ["out.mp4", "out.mp4.ikc"]
    with pytest.raises(VideoError, match="holds an unfinished run; continue it with --resume"):
        upscale(source, target)
    with pytest.raises(VideoError, match="started with other settings"):
        upscale(source, target, codec="hevc", resume=True)
    second = Repeating()
    outcome = upscale(source, target, second, resume=True)
    assert (outcome.frames, outcome.interrupted, second.calls) == (40, False, 23)
    assert numbers(target) == list(range(40))
    assert times(target) == times(source)
    assert packets(target, "audio") == packets(source, "audio")
    assert left_beside(target) == ["out.mp4"]


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from tests.video.clips import Repeating
from tests.video.test_file_sink import upscale
source, target = map(Path, sys.argv[1:])
def die(calls):
    while calls == 25 and len(list(target.parent.glob("out.mp4.ikc/0*"))) < 2:
        time.sleep(0.01)
    if calls == 25:
        os.kill(os.getpid(), signal.SIGKILL)
upscale(source, target, Repeating(before=die))
"""


def test_after_kill_9_every_frame_is_there_once(tmp_path: Path, repository: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(40)), audio=True)
    target = tmp_path / "out.mp4"
    command = [sys.executable, "-c", KILLED, str(source), str(target)]
    done = subprocess.run(command, cwd=repository, check=False)
    assert done.returncode == -signal.SIGKILL
    assert left_beside(target) == ["out.mp4.ikc"]
    upscaler = Repeating()
    outcome = upscale(source, target, upscaler, resume=True)
    assert (outcome.frames, upscaler.calls) == (40, 20)
    assert numbers(target) == list(range(40))
    assert times(target) == times(source)
    assert left_beside(target) == ["out.mp4"]


FULL = """
import resource, sys, threading
from pathlib import Path
from ikc_deploy.errors import DiskFullError
from tests.video.clips import Repeating
from tests.video.test_file_sink import upscale
source, target = map(Path, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    upscale(source, target, Repeating(4))
except DiskFullError as error:
    print(error)
"""


def test_a_full_disk_is_an_error_of_its_own(tmp_path: Path, repository: Path) -> None:
    """A limit on file sizes stands in for the disk: writing fails in the same place."""
    source = make_clip(tmp_path / "in.mp4", (photo(48, 80, seed) for seed in range(15)))
    target = tmp_path / "out.mp4"
    command = [sys.executable, "-c", FULL, str(source), str(target)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert "no room for" in done.stdout, done.stderr
    assert "--resume" in done.stdout
    assert left_beside(target) == []


def test_an_error_keeps_what_was_done_and_the_old_output(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(30)))
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an older output")

    def fail(calls: int) -> None:
        if calls == 14:
            raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        upscale(source, target, Repeating(before=fail))
    assert target.read_bytes() == b"an older output"
    upscaler = Repeating()
    upscale(source, target, upscaler, resume=True)
    assert upscaler.calls == 16
    assert numbers(target) == list(range(30))


def test_two_runs_cannot_write_one_output(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [numbered(0)] * 3)
    clip = Clip(source)
    sink = FileSink(settings(tmp_path / "out.mp4"), clip.facts, {}, clip)
    with pytest.raises(VideoError, match="another process is writing"):
        FileSink(settings(tmp_path / "out.mp4"), clip.facts, {}, clip)
    sink.abort()
    clip.close()
    assert left_beside(tmp_path / "out.mp4") == []


def test_memory_stays_flat_over_a_thousand_frames(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(1000)))
    sizes: list[int] = []

    def note(calls: int) -> None:
        status = Path("/proc/self/statm")
        if calls in (300, 999):
            sizes.append(int(status.read_text().split()[1]) * 4096 if status.exists() else 0)

    target = tmp_path / "out.mp4"
    assert upscale(source, target, Repeating(2, note)).frames == 1000
    # The 700 frames between would be 32 MB as RGB, and 16 MB as YUV.
    assert sizes[1] - sizes[0] < 10e6
    assert len(packets(target, "video")) == 1000


@st.composite
def orders(draw: st.DrawFn) -> list[int]:
    """Time stamps in an order of decoding, as B-frames make it."""
    shown = sorted(draw(st.sets(st.integers(-1000, 10**6), min_size=1, max_size=30)))
    order: list[int] = []
    while shown:
        size = draw(st.integers(1, min(5, len(shown))))
        group, shown = shown[:size], shown[size:]
        order += [group[-1], *draw(st.permutations(group[:-1]))]
    return order


@given(orders())
def test_decode_times_rise_and_are_in_time(pts: Sequence[int]) -> None:
    dts = decode_times(pts)
    assert all(before < after for before, after in pairwise(dts))
    assert all(decoded <= shown for decoded, shown in zip(dts, pts, strict=True))


def test_the_nasa_clip(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "video" / "torchcodec_nasa_13013.mp4"
    target = tmp_path / "out.mp4"
    outcome = upscale(source, target, Repeating(4), Span(duration=Fraction(2, 5)))
    assert outcome.frames == 10
    coded = video_of(target).codec_context
    assert (coded.width, coded.height) == (1280, 720)
    assert (coded.colorspace, coded.color_range) == (1, 1)
    assert (coded.color_primaries, coded.color_trc) == (1, 1)
    assert times(target) == times(source)[:10]
    assert packets(target, "audio") == packets(source, "audio")[: len(packets(target, "audio"))]
    before, after = Clip(source), Clip(target)
    for small, large in zip(before.frames(), after.frames(), strict=False):
        difference = large.rgb.mean(axis=(0, 1)) - small.rgb.mean(axis=(0, 1))
        assert np.abs(difference).max() < 0.5
        assert number_of(small.rgb[:48, :80]) == number_of(large.rgb[:192, :320])
    before.close()
    after.close()
