from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ikc_deploy import Bundle
from ikc_deploy.cli.ikc_upscale import main
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.worker import UpscaleCall, UpscalingWorker
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo
from tests.video.clips import (
    HEIGHT,
    TICK,
    WIDTH,
    make_clip,
    make_sound,
    number_of,
    numbered,
    numbers,
    packets,
    times,
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", map(numbered, range(25)), audio=True)


def shell(arguments: list[Any], **settings: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ikc_deploy.cli.ikc_upscale", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **settings)


def test_a_clip_is_upscaled_with_its_sound(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    options = ("--bundle", bundle.path, "--iters", 0, "--codec", "libx264", "--crf", 10)
    result = invoke(main, clip, "-o", target, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}: 80x48 -> 320x192, 25 frames\n"
    assert result.stderr == ""
    assert numbers(target) == list(range(25))
    assert times(target) == times(clip)
    assert packets(target, "audio") == packets(clip, "audio")


def test_a_part_as_json(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    options = ("--start", "0:00.4", "--duration", "0.2", "--sigma", 2, "--json")
    result = invoke(main, clip, "-o", target, "--bundle", bundle.path, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "input": str(clip),
        "output": str(target),
        "lr": [48, 80],
        "sr": [192, 320],
        "frames": 5,
        "dropped": 0,
        "interrupted": False,
        "warnings": [],
    }
    assert numbers(target) == [10, 11, 12, 13, 14]


def test_the_blur_of_a_clip_is_tracked_unless_an_option_says_otherwise(
    bundle: Bundle, tmp_path: Path
) -> None:
    """The repeating network brightens by every correction: 3 for the loop, 3.125 tracked."""
    source = make_clip(tmp_path / "in.mkv", [photo(48, 80)] * 2, codec="ffv1")
    levels = []
    for way in ((), ("--estimate", "crops"), ("--estimate", "full"), ("--sigma", "1")):
        pattern = tmp_path / "-".join(way) / "%d.png"
        options = ("-o", pattern, "--bundle", bundle.path, "--iters", 3, *way)
        result = invoke(main, source, *options)
        assert result.exit_code == 0, result.output
        first, second = (read_rgb(path).mean() for path in sorted(pattern.parent.glob("*.png")))
        levels.append(round(second - first))
    assert levels == [1, 0, 0, 0]


def test_control_c_finishes_the_file_and_resume_continues(
    bundle: Bundle, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    upscaling = UpscalingWorker.__call__

    def interrupted(self: UpscalingWorker, call: UpscaleCall) -> Result:
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return upscaling(self, call)

    monkeypatch.setattr(UpscalingWorker, "__call__", interrupted)
    before = signal.getsignal(signal.SIGINT)
    target = tmp_path / "out.mp4"
    options = ("-o", target, "--bundle", bundle.path, "--iters", 0)
    result = invoke(main, clip, *options)
    assert result.exit_code == 130
    # The signal is handled by the main thread, which may still receive frames that were read ahead.
    done = len(numbers(target))
    assert done >= 9
    assert f"{done} frames, interrupted, continue with --resume" in result.stdout
    assert numbers(target) == list(range(done))
    assert signal.getsignal(signal.SIGINT) is before
    assert_one_clear_line(invoke(main, clip, *options), "unfinished run", "--resume")
    for change, words in ((("--sigma", 2), "sigma: None"), (("--early-stop", 1), "early_stop")):
        changed = invoke(main, clip, *options, *change, "--resume")
        assert_one_clear_line(changed, "other settings", words)
    result = invoke(main, clip, *options, "--resume")
    assert result.exit_code == 0, result.output
    assert len(calls) < 25 + 9
    assert numbers(target) == list(range(25))
    assert packets(target, "audio") == packets(clip, "audio")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_a_preview_shows_bicubic_beside_the_upscaled(bundle: Bundle, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [photo(48, 80)] * 15, range(0, 10**6, 8 * TICK))
    pattern = tmp_path / "%03d.png"
    result = invoke(main, source, "-o", pattern, "--preview", "--bundle", bundle.path, "--iters", 0)
    assert result.exit_code == 0, result.output
    # Three seconds at 25/8 frames a second.
    assert "10 frames" in result.stdout
    shown = read_rgb(tmp_path / "001.png").astype(int)
    left, right = shown[:, :158], shown[:, 160:]
    # The bundle repeats pixels: fours of equal columns on the right only.
    assert (np.diff(right.reshape(192, 40, 4, 3), axis=2) == 0).all()
    assert (shown[:, 158:160] == 255).all()
    assert (np.diff(left[:, 1:157].reshape(192, 39, 4, 3), axis=2) != 0).any()


def test_a_clip_gets_the_requested_even_size(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    """79 columns of 80 by 48 would be 47.4 rows."""
    target = tmp_path / "out.mp4"
    options = ("--bundle", bundle.path, "--iters", 0, "--width", 79, "--strength", 0.5)
    result = invoke(main, clip, "-o", target, *options)
    assert result.exit_code == 0, result.output
    assert "80x48 -> 80x48, 25 frames" in result.stdout
    assert numbers(target) == list(range(25))


def test_pipes_carry_raw_video(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    options = ["--bundle", bundle.path, "--iters", 0]
    out = shell([clip, "-o", "-", "--raw", "rgb24", "--duration", "0.2", *options])
    assert out.returncode == 0, out.stderr
    frames = np.frombuffer(out.stdout, np.uint8).reshape(5, 4 * HEIGHT, 4 * WIDTH, 3)
    assert [number_of(frame) for frame in frames] == list(range(5))
    assert b"80x48 -> 320x192, 5 frames" in out.stderr
    target = tmp_path / "out.mp4"
    small = np.ascontiguousarray(frames[:, ::4, ::4])
    arguments = ["-", "-o", target, "--raw", "rgb24", "--raw-size", "80x48", "--rate", "30000/1001"]
    back = shell([*arguments, *options], input=small.tobytes())
    assert back.returncode == 0, back.stderr
    assert numbers(target) == list(range(5))
    assert times(target)[-1] == Fraction(4 * 1001, 30000)


def test_y4m_goes_through_both_pipes(bundle: Bundle, clip: Path) -> None:
    options = ["--raw", "y4m", "--bundle", bundle.path, "--iters", 0]
    first = shell([clip, "-o", "-", "--width", 80, "--duration", 0.2, *options])
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(b"YUV4MPEG2 W80 H48 F25:1 Ip A1:1 C420mpeg2 ")
    second = shell(["-", "-o", "-", *options], input=first.stdout)
    assert second.returncode == 0, second.stderr
    assert b"80x48 -> 320x192, 5 frames" in second.stderr
    with av.open(BytesIO(second.stdout), "r", format="yuv4mpegpipe") as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [number_of(frame) for frame in shown] == list(range(5))


@pytest.mark.parametrize("source", ["frames", "frames/%d.png"])
def test_an_image_sequence_becomes_a_clip(bundle: Bundle, tmp_path: Path, source: str) -> None:
    for number in range(3):
        write_rgb(numbered(number), tmp_path / "frames" / f"{number}.png")
    target = tmp_path / "out.mp4"
    options = ("--bundle", bundle.path, "--iters", 0, "--rate", 10)
    result = invoke(main, tmp_path / source, "-o", target, *options)
    assert result.exit_code == 0, result.output
    assert numbers(target) == [0, 1, 2]
    assert times(target)[2] == Fraction(1, 5)


def test_a_camera_is_recorded(bundle: Bundle, tmp_path: Path) -> None:
    """FFmpeg's test pattern is the stand-in: no camera is here."""
    target = tmp_path / "out.mp4"
    camera = ("--camera", "lavfi:testsrc2=size=32x16:rate=25", "--duration", "0.3")
    result = invoke(main, *camera, "-o", target, "--bundle", bundle.path, "--iters", 0)
    assert result.exit_code == 0, result.output
    assert " dropped" in result.stdout
    assert times(target)[0] < 0.3 and len(times(target)) > 1


def test_a_truncated_clip_is_upscaled_with_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    frames = (photo(48, 80, seed) for seed in range(30))
    options = {"movflags": "faststart"}
    source = make_clip(tmp_path / "in.mp4", frames, audio=True, options=options)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    target = tmp_path / "out.mp4"
    result = invoke(main, source, "-o", target, "--bundle", bundle.path, "--iters", 0)
    assert result.exit_code == 0, result.output
    assert "warning: " in result.stderr and "cut short" in result.stderr
    assert 5 < len(times(target)) < 25
    sound = packets(target, "audio")
    assert sound and sound == packets(source, "audio")[: len(sound)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.mp4", "-o", "out.mp4"), ("no clip or folder", "gone.mp4")),
        (("text.mp4", "-o", "out.mp4"), ("text.mp4' cannot be read as video",)),
        (("sound.mp4", "-o", "out.mp4"), ("has no video stream, only audio",)),
        (("in.mp4", "-o", "out.mp4", "--codec", "abacus"), ("no encoder opens for abacus",)),
        (("in.mp4", "-o", "100%done.avi"), ("invalid video output",)),
        (("in.mp4", "-o", "100%dark.png"), ("invalid video output",)),
        (("in.mp4", "-o", "out.avi"), ("invalid video output",)),
        (("in.mp4", "-o", "in.mp4"), ("would be overwritten",)),
        (
            ("in.mp4", "in.mp4", "-o", "out.mp4"),
            ("one output, but there are 2 inputs; give a folder",),
        ),
        (("a.png", "a.png", "-o", "out.mp4"), ("for a clip of images, give their folder",)),
        (("gone/%04d.png", "-o", "out.mp4"), ("no image 'gone/%04d.png', for example",)),
        (("in.mp4",), ("name the output with -o",)),
        (("in.mp4", "-o", "-"), ("--raw rgb24",)),
        (("in.mp4", "-o", "out.mp4", "--raw-size", "8x8"), ("give --raw too",)),
        (("in.mp4", "-o", "out.mp4", "--save-steps", "x"), ("--save-steps: only for images",)),
        (("in.mp4", "-o", "out.mp4", "--sigma", "9"), ("sigma must lie in",)),
        (("a.png", "-o", "b.png", "--crf", "9", "--resume"), ("--crf, --resume: only for",)),
        (("--camera", "rtsp://me:secret@127.0.0.1:9/", "-o", "out.mp4"), ("does not answer",)),
        ((), ("name the inputs",)),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    bundle: Bundle,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(clip.parent)
    Path("text.mp4").write_text("no clip\n" * 99)
    write_rgb(photo(8, 8), "a.png")
    make_sound(Path("sound.mp4"))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    result = invoke(main, *arguments, "--bundle", bundle.path)
    assert_one_clear_line(result, *words)
    assert "secret" not in result.stderr
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_no_name_ends_a_run_on_a_strict_terminal(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    source = clip.rename(tmp_path / name)
    source.write_bytes(source.read_bytes()[:-1])
    options = ["--bundle", bundle.path, "--iters", 0, "--codec", "libx264"]
    for target in (tmp_path / f"out-{name}", tmp_path / f"out-{name}.gone"):
        strict = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
        done = shell([source, "-o", target, *options], env=strict)
        assert b"Traceback" not in done.stderr
        assert done.returncode == (0 if target.suffix == ".mp4" else 2), done.stderr
        assert b"caf" in done.stdout + done.stderr
    assert numbers(tmp_path / f"out-{name}") == list(range(25))


@pytest.mark.parametrize(
    ("option", "text", "word"),
    [("--start", "soon", "1:30"), ("--raw-size", "8by8", "WIDTHxHEIGHT"), ("--rate", "1/0", "25")],
)
def test_times_sizes_and_rates_are_parsed(option: str, text: str, word: str) -> None:
    result = invoke(main, "in.mp4", "-o", "out.mp4", option, text)
    assert result.exit_code == 2
    assert word in result.stderr


NO_AV = "import sys; sys.modules['av'] = None; from ikc_deploy.cli.ikc_upscale import main; main()"


def test_without_pyav_pictures_work_and_video_names_the_extra(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    write_rgb(photo(8, 8), tmp_path / "a.png")
    options = ["--bundle", str(bundle.path), "--iters", "0"]
    codes, said = [], ""
    for name in ("a.png", clip.name):
        arguments = [str(tmp_path / name), "-o", str(tmp_path / f"out{Path(name).suffix}")]
        command = [sys.executable, "-c", NO_AV, *arguments, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
        said = done.stderr
    assert codes == [0, 2]
    assert "ikc-deploy[video]" in said
