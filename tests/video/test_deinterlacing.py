from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ikc_deploy.video.clip import Clip, ClipRange, Span
from ikc_deploy.video.decoder import Decoder
from ikc_deploy.video.names import Deinterlace
from ikc_deploy.video.source_facts import video_stream
from ikc_deploy.video.split_points import split_ranges

INTERLACED = {"flags": "+ildct+ilme", "x264-params": "tff=1:keyint=4", "bf": "2"}
TIMES = [0, 512, 1100, 1536, 2048, 2560, 3072, 3600, 4096]
"""Time stamps that are not all a frame apart."""


def interlaced_clip(path: Path, coding: dict[str, str] | None = None) -> Path:
    """A moving bar whose two fields differ, coded as fields unless `coding` says otherwise."""
    with av.open(path, "w") as container:
        options = {"crf": "4"} | (INTERLACED if coding is None else coding)
        stream: Any = container.add_stream("libx264", 25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 12800)
        for number, time in enumerate(TIMES):
            luma = np.full((72, 64), 128, np.uint8)
            luma[:48] = np.linspace(40, 90, 48)[:, None]
            for field in (0, 1):
                at = 4 * (2 * number + field) % 56
                luma[field:48:2, at : at + 8] = 220
            frame = av.VideoFrame.from_ndarray(luma, format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 12800)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def planes(path: Path, mode: Deinterlace) -> tuple[list[Any], list[int | None]]:
    with av.open(path) as container:
        decoder = Decoder(container, video_stream(container, "clip"), mode)
        frames = list(decoder.frames())
    return [frame.to_ndarray(format="yuv420p") for frame in frames], [each.pts for each in frames]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with the ffmpeg program")
@pytest.mark.parametrize(("mode", "marked"), [("auto", True), ("on", True), ("on", False)])
def test_frames_are_those_of_ffmpegs_bwdif(tmp_path: Path, mode: Deinterlace, marked: bool) -> None:
    source = interlaced_clip(tmp_path / "in.mp4", None if marked else {})
    frames, times = planes(source, mode)
    command = f"ffmpeg -loglevel error -i {source} -vf bwdif=mode=send_frame -fps_mode passthrough"
    raw = subprocess.run(
        [*command.split(), "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"],
        capture_output=True,
        check=True,
    )
    expected = np.frombuffer(raw.stdout, np.uint8).reshape(-1, 72, 64)
    found = np.stack(frames)
    np.testing.assert_array_equal(found[1:], expected[1:])
    # FFmpeg 5 and 8 differ in the outer rows of the first frame, which has no frame before it.
    np.testing.assert_array_equal(found[0, 4:44], expected[0, 4:44])
    assert times == TIMES


def test_what_is_not_marked_or_not_wanted_is_left_alone(tmp_path: Path) -> None:
    source = interlaced_clip(tmp_path / "in.mp4")
    combed, times = planes(source, "off")
    smooth, _ = planes(source, "auto")
    assert times == TIMES
    assert not np.array_equal(np.stack(combed), np.stack(smooth))
    progressive = interlaced_clip(tmp_path / "progressive.mp4", {})
    np.testing.assert_array_equal(planes(progressive, "auto")[0], planes(progressive, "off")[0])


def test_a_clip_says_that_it_was_deinterlaced_and_is_one_range(tmp_path: Path) -> None:
    source = interlaced_clip(tmp_path / "in.mp4")
    for mode, line, ranges in (
        ("auto", "its frames are deinterlaced (bwdif)", 1),
        ("off", "its fields are upscaled as one frame", 2),
    ):
        clip = Clip(source, deinterlace=mode)  # type: ignore[arg-type]
        assert len(split_ranges(clip, 4)) >= ranges
        assert (split_ranges(clip, 4) == [ClipRange()]) == (mode == "auto")
        assert [frame.pts for frame in clip.frames()] == TIMES
        assert len(clip.warnings) == 1 and line in clip.warnings[0]
        clip.close()
    one = Clip(source, Span(Fraction(0), Fraction(1, 25)))
    assert len(list(one.frames())) == 1
    one.close()
