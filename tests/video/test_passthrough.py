from __future__ import annotations

import io
import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import av
import pytest
from hypothesis import given
from hypothesis import settings as thorough
from hypothesis import strategies as st
from PIL import Image

from ikc_deploy.errors import OutputError, VideoError
from ikc_deploy.video.clip import Clip, Span
from ikc_deploy.video.clocks import TimestampRepair
from tests.video.clips import Repeating, make_clip, numbered, numbers, packets, times
from tests.video.streams import (
    TONE,
    audio_facts,
    box,
    make_clip_with_tone,
    stream_codecs,
    subtitles,
    with_boxes,
    with_matrix,
)
from tests.video.test_file_sink import opened, upscale

SOURCES = [
    ("in.avi", "pcm_s16le"),
    ("in.mov", "pcm_s16be"),
    ("in.mkv", "flac"),
    ("in.ts", "mp2"),
    ("in.avi", "adpcm_ms"),
]
CODECS = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".ts": "libx264"}


@pytest.mark.parametrize(("name", "encoder"), SOURCES)
@pytest.mark.parametrize("suffix", CODECS)
def test_audio_is_kept_in_every_container(
    tmp_path: Path, name: str, encoder: str, suffix: str
) -> None:
    video = "mpeg2video" if name.endswith("ts") else "mpeg4"
    source = make_clip_with_tone(tmp_path / name, encoder, codec=video)
    target = tmp_path / f"out{suffix}"
    upscale(source, target, codec=CODECS[suffix], crf=30)
    before, after = audio_facts(source), audio_facts(target)
    assert abs(after[1] - before[1]) < Fraction(4, 100)
    assert abs(after[2] - before[2]) < Fraction(8, 100)
    assert abs(after[3] - TONE) < 10
    assert numbers(target) == list(range(25))
    if after[0] == before[0]:
        copied = packets(target, "audio")
        assert b"".join(data for _, data in copied) == b"".join(
            data for _, data in packets(source, "audio")
        )


def test_re_encoding_is_reported_with_the_reason_of_ffmpeg(tmp_path: Path) -> None:
    source = make_clip_with_tone(tmp_path / "in.mkv", "flac")
    with opened(source, tmp_path / "out.mov") as sink:
        (notice,) = sink.warnings
    assert "stream 1 is re-encoded as pcm_s16le" in notice
    assert "flac only supported in MP4" in notice


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "mov_text"), (".mov", "mov_text"), (".webm", "webvtt"), (".mkv", "subrip")],
)
def test_subtitles_keep_their_times_in_every_container(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    lines = [(200, "caf\u00e9 & <i>cr\u00e8me</i>"), (800, "two\nlines")]
    source = make_clip(tmp_path / "in.mkv", map(numbered, range(5)), subtitles=lines)
    if suffix == ".mkv":
        upscale(source, tmp_path / "between.mp4")
        source = tmp_path / "between.mp4"
    target = tmp_path / f"out{suffix}"
    upscale(source, target, codec=CODECS.get(suffix, "libx264"))
    assert ("subtitle", codec) in stream_codecs(target)
    half = Fraction(1, 2)
    assert subtitles(target) == [
        (Fraction(1, 5), half, "caf\u00e9 & cr\u00e8me"),
        (Fraction(4, 5), half, "two\nlines"),
    ]


def test_re_encoded_text_is_reported(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", [numbered(0)] * 3, subtitles=[(0, "one")])
    with opened(source, tmp_path / "out.mp4") as sink:
        assert "stream 1 is re-encoded as mov_text: mp4 does not support" in sink.warnings[0]


def test_a_stream_without_packets_is_left_out(tmp_path: Path) -> None:
    whole = make_clip_with_tone(tmp_path / "whole.ts", "mp2", codec="mpeg2video").read_bytes()
    cells = [whole[at : at + 188] for at in range(0, len(whole), 188)]
    silent = [cell for cell in cells if (cell[1] & 31) << 8 | cell[2] != 0x101]
    source = tmp_path / "in.ts"
    source.write_bytes(b"".join(silent))
    for name in ("out.mp4", "out.mkv", "out.ts"):
        with opened(source, tmp_path / name) as sink:
            assert [notice.split(":")[0] for notice in sink.warnings] == ["stream 1 is left out"]
            assert "which has no packets" in sink.warnings[0]
        upscale(source, tmp_path / name)
        assert [kind for kind, _ in stream_codecs(tmp_path / name)] == ["video"]


def test_audio_that_cannot_be_decoded_is_refused_or_left_out(tmp_path: Path) -> None:
    """An unknown codec may be played elsewhere; noise is lost already."""
    source = make_clip_with_tone(tmp_path / "in.mov", "pcm_s16le")
    unknown = tmp_path / "unknown.mov"
    unknown.write_bytes(source.read_bytes().replace(b"sowt", b"apqc"))
    with pytest.raises(
        VideoError, match=r"mp4 does not support .* audio .* remove the audio first"
    ):
        upscale(unknown, tmp_path / "out.mp4")
    noise = tmp_path / "noise.mkv"
    with av.open(source) as before, av.open(noise, "w") as after:
        video = after.add_stream_from_template(before.streams.video[0], opaque=True)
        sound = after.add_mux_stream("ac3", 48000)
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = video
                after.mux(packet)
                other = av.Packet(bytes(50))
                other.pts = other.dts = packet.dts
                other.time_base, other.stream = packet.time_base, sound
                after.mux(other)
    outcome = upscale(noise, tmp_path / "out.mp4")
    assert outcome.frames == 25
    assert stream_codecs(tmp_path / "out.mp4")[0] == ("video", "h264")


@st.composite
def broken_times(draw: st.DrawFn) -> list[tuple[int | None, int | None]]:
    """Times of presentation and decoding as they should not be."""
    time = st.none() | st.integers(-50, 200)
    return draw(st.lists(st.tuples(time, time), min_size=1, max_size=20))


@thorough(max_examples=60)
@given(broken_times(), st.sampled_from(["mp4", "mpegts", "matroska", "nut"]))
def test_repaired_time_stamps_are_accepted_by_the_muxers(
    stamps: list[tuple[int | None, int | None]], container: str
) -> None:
    """FFmpeg's muxers are the judges: they refuse what does not rise."""
    output: Any = av.open(io.BytesIO(), "w", format=container)
    stream: Any = output.add_stream("mp2", 48000)
    output.start_encoding()
    repair, written = TimestampRepair(output, stream), list[Any]()
    for pts, dts in stamps:
        packet = av.Packet(bytes(100))
        packet.pts, packet.dts, packet.time_base = pts, dts, Fraction(1, 1000)
        repair(packet)
        written.append((packet.pts, packet.dts))
        # NUT and MP4 take no time before 0 as their first.
        if written[0][1] >= 0:
            output.mux(packet)
    assert all(pts >= dts for pts, dts in written)
    assert all(before[1] <= after[1] for before, after in pairwise(written))


def test_a_time_stamp_twice_moves_by_a_tick(tmp_path: Path) -> None:
    """What a remux with a clock of milliseconds leaves."""
    source = make_clip(tmp_path / "in.mkv", map(numbered, range(25)), audio=True)
    doubled = tmp_path / "doubled.mkv"
    with av.open(source) as before, av.open(doubled, "w") as after:
        copies = [after.add_stream_from_template(each, opaque=True) for each in before.streams]
        last = 0
        for packet in before.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio":
                time = cast(int, packet.dts)
                packet.pts = packet.dts = last = time if time // 64 % 2 else last
            packet.stream = copies[packet.stream.index]
            after.mux(packet)
    target = tmp_path / "out.mp4"
    assert upscale(doubled, target).warnings == ()
    assert [data for _, data in packets(target, "audio")] == [
        data for _, data in packets(doubled, "audio")
    ]


def test_a_clock_that_has_run_for_hours_begins_at_zero(tmp_path: Path) -> None:
    late = Fraction(72000)
    source = make_clip_with_tone(tmp_path / "in.ts", "mp2", codec="mpeg2video", start=late)
    assert times(source)[0] > 70000
    for name in ("out.mp4", "out.mkv", "out.ts"):
        upscale(source, tmp_path / name)
        assert 0 <= times(tmp_path / name)[0] < Fraction(1, 10)
        before, after = audio_facts(source), audio_facts(tmp_path / name)
        assert abs(after[1] - before[1]) < Fraction(1, 100)


@pytest.mark.parametrize("starts", [(5000, 100), (100, 5000), (900, 100, 72000, 100)])
def test_a_clock_that_is_reset_continues(tmp_path: Path, starts: tuple[int, ...]) -> None:
    """Transport streams that were put one behind the other."""
    parts = [
        make_clip_with_tone(
            tmp_path / f"{index}.ts", "mp2", codec="mpeg2video", start=Fraction(start)
        )
        for index, start in enumerate(starts)
    ]
    source = tmp_path / "in.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    target = tmp_path / "out.mp4"
    upscale(source, target)
    shown = times(target)
    assert numbers(target) == list(range(25)) * len(starts)
    steps = [later - time for time, later in pairwise(shown)]
    assert all(abs(step - Fraction(1, 25)) < Fraction(1, 10) for step in steps)
    assert abs(audio_facts(target)[2] - len(starts)) < Fraction(1, 4)


def test_sound_that_fails_at_the_end_costs_no_frames(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(15)), audio=True)
    target = tmp_path / "out.mp4"
    gone = Repeating(before=lambda calls: source.unlink() if calls == 12 else None)
    outcome = upscale(source, target, gone)
    assert numbers(target) == list(range(15))
    (warning,) = outcome.warnings
    assert "audio, subtitles and tags are missing" in warning
    assert "No such file" in warning
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]


@given(st.binary(min_size=5, max_size=5).filter(lambda text: 0 not in text))
@thorough(max_examples=20, deadline=None)
def test_tags_may_be_any_bytes(text: bytes) -> None:
    with TemporaryDirectory() as folder:
        source = make_clip_with_tone(
            Path(folder) / "in.avi", "pcm_s16le", seconds=0.08, title="TITLE"
        )
        source.write_bytes(source.read_bytes().replace(b"TITLE", text))
        target = Path(folder) / "out.mp4"
        upscale(source, target)
        with av.open(target) as container:
            title = container.metadata.get("title", "")
        # A tag may be cut at what its container takes for its end.
        assert text.decode(errors="replace").startswith(title.rstrip())


SPHERICAL = box(
    b"sv3d",
    box(b"svhd", bytes(4) + b"x\0")
    + box(b"proj", box(b"prhd", bytes(16)) + box(b"equi", bytes(20))),
)
STEREO = box(b"st3d", bytes(4) + b"\2")


def test_marks_that_are_lost_are_reported_once(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mp4", [numbered(1)] * 3)
    source = tmp_path / "in.mp4"
    source.write_bytes(with_boxes(plain.read_bytes(), SPHERICAL, STEREO))
    with opened(source, tmp_path / "out.mp4") as sink:
        assert ["3D" in notice for notice in sink.warnings] == [True]
    outcome = upscale(source, tmp_path / "out.mp4")
    assert ["360-degree" in warning for warning in outcome.warnings] == [True]


ONE = 2**16
TURNED = (0, ONE, 0, -ONE, 0, 0, 48 * ONE, 0, 2**30)
FLIPPED = (-ONE, 0, 0, 0, ONE, 0, 80 * ONE, 0, 2**30)


@pytest.mark.parametrize(
    ("matrix", "name", "kept"),
    [
        (TURNED, "out.mp4", True),
        (FLIPPED, "out.mkv", True),
        (TURNED, "out.ts", False),
        (FLIPPED, "out.ts", False),
    ],
)
def test_a_rotation_is_kept_or_its_loss_is_reported(
    tmp_path: Path, matrix: tuple[int, ...], name: str, kept: bool
) -> None:
    plain = make_clip(tmp_path / "plain.mp4", map(numbered, range(20)))
    source = tmp_path / "in.mp4"
    source.write_bytes(with_matrix(plain.read_bytes(), matrix))
    with opened(source, tmp_path / name) as sink:
        assert ["rotated or flipped" in notice for notice in sink.warnings] == [True] * (not kept)
    upscale(source, tmp_path / name)
    clip = Clip(tmp_path / name)
    clip.close()
    assert (clip.facts.display_matrix or (ONE, 0, 0, 0, ONE))[:5] == (
        matrix[:5] if kept else (ONE, 0, 0, 0, ONE)
    )


def test_a_stretch_becomes_the_shape_of_pixels_with_a_warning(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mp4", [numbered(1)] * 3)
    source = tmp_path / "in.mp4"
    matrix = (2 * ONE, 0, 0, 0, ONE, 0, 0, 0, 2**30)
    source.write_bytes(with_matrix(plain.read_bytes(), matrix))
    outcome = upscale(source, tmp_path / "out.mp4")
    assert ["scales or stretches" in warning for warning in outcome.warnings] == [True]
    clip = Clip(tmp_path / "out.mp4")
    clip.close()
    assert clip.facts.aspect == 2
    assert (clip.facts.display_matrix, clip.warnings) == (None, [])


@pytest.mark.parametrize("orientation", [1, 6])
def test_side_data_that_pyav_has_no_name_for_is_no_matter(tmp_path: Path, orientation: int) -> None:
    """JPEG with EXIF as frames of a clip."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    coded = io.BytesIO()
    Image.fromarray(numbered(5)).save(coded, "JPEG", exif=exif, quality=95)
    source = tmp_path / "in.avi"
    with av.open(source, "w") as container:
        stream: Any = container.add_stream("mjpeg", 25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuvj420p"
        for number in range(3):
            packet = av.Packet(coded.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    upscale(source, tmp_path / "out.mp4")
    assert numbers(tmp_path / "out.mp4") == [5] * 3
    with av.open(tmp_path / "out.mp4") as container:
        turn = next(iter(container.decode(video=0))).rotation
    assert turn == {1: 0, 6: -90}[orientation]


def test_transparency_that_the_decoder_omits_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "in.webm"
    with av.open(source, "w") as container:
        stream: Any = container.add_stream("libvpx-vp9", 25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        stream.metadata["alpha_mode"] = "1"
        frame = av.VideoFrame.from_ndarray(numbered(1), format="rgb24")
        frame.pts = 0
        container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    outcome = upscale(source, tmp_path / "out.webm", codec="libvpx-vp9")
    assert outcome.warnings == ("the clip has transparency, which is left out",)
    clip = Clip(tmp_path / "out.webm")
    clip.close()
    assert clip.warnings == []


@pytest.mark.parametrize(
    "name", ["100%done.mp4", "%03d.mp4", "a:b.mkv", "concat:x|y.mp4", "-o.mp4", "#?&.ts"]
)
def test_names_are_only_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_clip(Path("c%da:.mp4"), map(numbered, range(20)))
    upscale(source, Path(name))
    assert numbers(tmp_path / name) == list(range(20))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["c%da:.mp4", name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n" * 252 + ".mp4", "at most 255 bytes|shorter name"),
        ("folder.mp4", "is a folder"),
        ("file/out.mp4", "is a file, not a folder"),
        ("pipe.mp4", "not a regular file"),
        ("/proc/out.mp4", "cannot be written"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_the_work(
    tmp_path: Path, name: str, words: str
) -> None:
    source = make_clip(tmp_path / "in.mp4", [numbered(0)] * 2)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    calls = Repeating()
    with pytest.raises((VideoError, OutputError), match=words):
        upscale(source, tmp_path / name, calls)
    assert calls.calls == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "file",
        "folder.mp4",
        "in.mp4",
        "pipe.mp4",
    ]


def with_timecode(path: Path, timecode: str) -> Path:
    """Fifty numbered frames with a timecode track."""
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        stream.metadata["timecode"] = timecode
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def timecode_of(path: Path) -> str | None:
    with av.open(path) as container:
        tags = container.streams.video[0].metadata
        return tags.get("timecode") or tags.get("TIMECODE")


@pytest.mark.parametrize("name", ["out.mov", "out.mp4", "out.mkv", "out.ts"])
def test_a_timecode_is_kept_or_its_loss_is_reported(tmp_path: Path, name: str) -> None:
    source = with_timecode(tmp_path / "in.mov", "01:00:00:00")
    with av.open(source) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    with opened(source, tmp_path / name) as sink:
        expected = (
            []
            if name != "out.ts"
            else ["the timecode 01:00:00:00 is left out, which mpegts does not support"]
        )
        assert sink.warnings == expected
    upscale(source, tmp_path / name)
    assert timecode_of(tmp_path / name) == (None if name == "out.ts" else "01:00:00:00")


def test_a_part_that_begins_later_does_not_get_the_timecode_of_the_start(tmp_path: Path) -> None:
    source = with_timecode(tmp_path / "in.mov", "01:00:00:00")
    upscale(source, tmp_path / "out.mov", span=Span(Fraction(1)))
    assert timecode_of(tmp_path / "out.mov") is None
    assert numbers(tmp_path / "out.mov") == list(range(25, 50))


def test_subtitles_without_a_decoder_are_left_out_with_a_warning(tmp_path: Path) -> None:
    """TTML, which FFmpeg writes but does not read."""
    text = make_clip(tmp_path / "text.mkv", map(numbered, range(9)), subtitles=[(40, "one")])
    source = tmp_path / "in.mp4"
    with av.open(text) as before, av.open(source, "w") as after:
        video = after.add_stream_from_template(before.streams.video[0], opaque=True)
        ttml: Any = after.add_stream("ttml")
        ttml.codec_context.time_base = ttml.time_base = Fraction(1, 1000)
        decoder: Any = before.streams.subtitles[0].codec_context
        decoder.open(strict=False)
        ttml.codec_context.subtitle_header = decoder.subtitle_header
        for packet in before.demux():
            made: Any = packet
            if not packet.size or packet.stream.type not in ("video", "subtitle"):
                continue
            if packet.stream.type == "subtitle":
                made = ttml.codec_context.encode_subtitle(decoder.decode2(packet))
                made.pts = made.dts = packet.pts
                made.duration, made.time_base = packet.duration, packet.time_base
            made.stream = video if packet.stream.type == "video" else ttml
            after.mux(made)
    with opened(source, tmp_path / "out.mp4") as sink:
        (warning,) = sink.warnings
    assert "stream 1 is left out: subtitle" in warning and "has no decoder" in warning
    upscale(source, tmp_path / "out.mp4")
    assert stream_codecs(tmp_path / "out.mp4") == [("video", "h264")]
