"""`ikc-upscale` on many images and clips in one command."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.cli.ikc_upscale import main
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.runtime.worker import UpscaleCall, UpscalingWorker
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo
from tests.video.clips import make_clip, numbered, numbers, packets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for name in ("clip2.mkv", "clip10.mp4", "sub/deep.avi"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make_clip(root / name, map(numbered, range(2)))
    write_rgb(photo(12, 16), root / "a.png")
    write_rgb(photo(12, 16, seed=1), root / "sub" / "b.jpg")
    (root / "notes.txt").touch()
    return root


def test_images_and_clips_are_upscaled_in_natural_order(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    close = Upscaler.close

    def counted(self: Upscaler) -> None:
        opened.append(1)
        close(self)

    monkeypatch.setattr(Upscaler, "close", counted)
    out = tmp_path / "out"
    options = ("--bundle", bundle.path, "--iters", 0, "--recursive")
    result = invoke(main, folder, "-o", out, *options)
    assert result.exit_code == 0, result.output
    written = [Path(line.split(": ")[0]).relative_to(out) for line in result.stdout.splitlines()]
    assert [path.as_posix() for path in written] == [
        *("a.png", "clip2.mkv", "clip10.mp4", "sub/b.jpg", "sub/deep.mkv")
    ]
    assert "notes.txt" in result.stderr
    assert numbers(out / "clip10.mp4") == numbers(out / "sub" / "deep.mkv") == [0, 1]
    assert len(opened) == 1, "the networks are loaded once"
    alone = tmp_path / "alone.mkv"
    assert invoke(main, folder / "clip2.mkv", "-o", alone, *options[:4]).exit_code == 0
    assert packets(alone, "video") == packets(out / "clip2.mkv", "video")


def test_a_file_that_fails_does_not_stop_the_others(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    (folder / "bad.mp4").write_text("no clip")
    (folder / "bad.png").write_text("no image")
    inputs = [folder / name for name in ("bad.mp4", "a.png", "bad.png", "clip2.mkv")]
    options = ("--bundle", bundle.path, "--iters", 0, "--json", "--width", 40)
    result = invoke(main, *inputs, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    image, clip = map(json.loads, result.stdout.splitlines())
    assert image["sr"] == [30, 40] and clip["frames"] == 2 and clip["sr"][1] == 40
    heading, *failures = result.stderr.splitlines()
    assert heading == "error: 2 of 4 files failed:"
    assert ["bad.mp4" in failures[0], "bad.png" in failures[1], len(failures)] == [True, True, 2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "clip2.mkv"]


def test_existing_outputs_are_refused_kept_or_replaced(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    inputs = (folder / "a.png", folder / "clip2.mkv")
    for out in (tmp_path / "clip2.mkv", tmp_path / "a.png", tmp_path / "out" / "clip2.mkv"):
        out.parent.mkdir(exist_ok=True)
        out.write_text("mine")
    options = ("--bundle", bundle.path, "--iters", 0)
    one_clip = (inputs[1], "-o", tmp_path / "clip2.mkv", *options)
    one_image = (inputs[0], "-o", tmp_path / "a.png", *options)
    queue = (*inputs, "-o", tmp_path / "out", *options)
    for arguments in (one_clip, one_image, queue):
        assert_one_clear_line(invoke(main, *arguments), "exists; give --overwrite", ".")
        assert_one_clear_line(
            invoke(main, *arguments, "--overwrite", "--skip-existing"), "not both"
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip2.mkv"]
    for arguments, lines in ((one_clip, 0), (one_image, 0), (queue, 1)):
        kept = invoke(main, *arguments, "--skip-existing")
        assert kept.exit_code == 0 and "skipped, the output exists" in kept.stderr
        assert len(kept.stdout.splitlines()) == lines
    assert (tmp_path / "out" / "clip2.mkv").read_text() == "mine"
    for arguments in (one_clip, one_image, queue):
        assert invoke(main, *arguments, "--overwrite").exit_code == 0
    assert numbers(tmp_path / "clip2.mkv") == numbers(tmp_path / "out" / "clip2.mkv") == [0, 1]
    np.testing.assert_array_equal(
        read_rgb(tmp_path / "a.png"), read_rgb(tmp_path / "out" / "a.png")
    )


def test_an_interrupted_queue_is_continued(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    upscaling = UpscalingWorker.__call__

    def interrupted(self: UpscalingWorker, call: UpscaleCall) -> Result:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return upscaling(self, call)

    monkeypatch.setattr(UpscalingWorker, "__call__", interrupted)
    source = make_clip(folder / "clip10.mp4", map(numbered, range(12)))
    arguments = (folder / "a.png", source, folder / "clip2.mkv", "-o", tmp_path / "out")
    options = ("--bundle", bundle.path, "--iters", 0)
    result = invoke(main, *arguments, *options)
    assert result.exit_code == 130
    assert "interrupted, continue with --resume" in result.stdout
    assert not (tmp_path / "out" / "clip2.mkv").exists()
    for more in ((), ("--skip-existing",), ("--overwrite",)):
        assert_one_clear_line(invoke(main, *arguments, *options, *more), "unfinished", "--resume")
    result = invoke(main, *arguments, *options, "--resume", "--skip-existing")
    assert result.exit_code == 0, result.output
    assert numbers(tmp_path / "out" / "clip10.mp4") == list(range(12))
    assert numbers(tmp_path / "out" / "clip2.mkv") == [0, 1]
    assert len(calls) == 1 + 12 + 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--strip",), ("--strip: only for images", "clip2.mkv")),
        (("--save-steps", "s"), ("--save-steps: only for images",)),
        (("--rate", "5"), ("--rate is only for a single stream",)),
        (("--estimate", "track"), ("--estimate track is only for video",)),
        (("--start", "-1"), ()),
    ],
)
def test_what_one_file_cannot_have_is_refused_before_the_work(
    bundle: Bundle, folder: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    inputs = (folder / "a.png", folder / "clip2.mkv", "-o", tmp_path / "out")
    result = invoke(main, *inputs, "--bundle", bundle.path, *options)
    assert result.exit_code == 2 and all(word in result.stderr for word in words)
    assert not (tmp_path / "out").exists()


def test_one_output_cannot_hold_a_queue(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    for inputs, out, word in (
        ((folder / "a.png", folder / "clip2.mkv"), "x.png", "is a file; give a folder"),
        ((folder / "clip10.mp4", folder / "clip2.mkv"), "x.mp4", "one output, but there are 2"),
        ((folder,), "x.avi", "is a file; give a folder"),
    ):
        result = invoke(main, *inputs, "-o", tmp_path / out, "--bundle", bundle.path)
        assert_one_clear_line(result, word)
