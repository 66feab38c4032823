"""Batches from beginning to end, with tasks done here in the order in which they are planned.

`tests/scale/test_ray.py` does the same on real actors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ikc_deploy import Bundle, InputError
from ikc_deploy.batch.run import BatchReport, Joined, run_batch
from ikc_deploy.batch.run_state import FOLDER, open_run_state
from ikc_deploy.batch.settings import ActorSettings, BatchSettings
from ikc_deploy.batch.tasks import ChunkTask, Task, TaskOutcome, run_task
from ikc_deploy.cli.ikc_upscale import main
from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.video.encoder_settings import EncoderSettings
from tests.cli.running import invoke
from tests.repeating import repeated
from tests.samples import photo
from tests.video.clips import make_clip, numbered, numbers, packets, times

FRAMES = 250
CODING = {"g": "125", "sc_threshold": "0"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pieces with sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return make_clip(path, map(numbered, range(FRAMES)), audio=True, coding=CODING)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_rgb(photo(10 + number, 12, number), tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


class Actor:
    """Does tasks as actors do, and keeps them; pieces but the first fail if `failing`."""

    def __init__(self) -> None:
        self.done: list[Task] = []
        self.failing = False

    def run(
        self, tasks: Sequence[Task], upscaler: ActorSettings, *_: Any
    ) -> Iterator[tuple[int, TaskOutcome]]:
        self.done = list(tasks)
        with upscaler.open() as opened:
            for number, task in enumerate(tasks):
                later = isinstance(task, ChunkTask) and task.clip_range.begin is not None
                error = TaskOutcome(error="the disk is on fire")
                yield (
                    number,
                    error if later and self.failing else run_task(task, opened, upscaler.sigma),
                )


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    actor = Actor()
    monkeypatch.setattr("ikc_deploy.batch.run.connected", lambda _: nullcontext())
    monkeypatch.setattr("ikc_deploy.batch.run.run_tasks", actor.run)
    return actor


def batch(
    bundle: Bundle,
    out: Path,
    *inputs: Path,
    sigma: float | None = None,
    postprocessing: Postprocessing = NO_POSTPROCESSING,
    **options: Any,
) -> BatchReport:
    upscaler = ActorSettings(bundle.path, UpscalerOptions(iters=0), sigma)
    settings = BatchSettings(
        inputs, out, upscaler, EncoderSettings(), postprocessing=postprocessing
    )
    return run_batch(settings, **options)


def test_pictures_and_clips_come_out_as_without_actors(
    bundle: Bundle, folder: Path, clip: Path, actor: Actor, tmp_path: Path
) -> None:
    (folder / "clip.mp4").symlink_to(clip)
    announced: list[Any] = []
    progress: list[tuple[int, int]] = []
    out = tmp_path / "out"
    report = batch(
        bundle,
        out,
        folder,
        on_output=announced.append,
        progress=lambda *counts: progress.append(counts),
    )
    assert (report.made, report.kept, report.failures) == (4, 0, [])
    assert len(actor.done) == 2 + 3
    assert progress[0] == (0, FRAMES + 3) and progress[-1] == (FRAMES + 3, FRAMES + 3)
    for number in range(3):
        expected = repeated(photo(10 + number, 12, number))
        np.testing.assert_array_equal(read_rgb(out / f"{number}.png"), expected)
    (joined,) = (each for each in announced if isinstance(each, Joined))
    assert (joined.target, joined.frames, joined.warnings) == (out / "clip.mp4", FRAMES, ())
    assert numbers(out / "clip.mp4") == list(range(FRAMES))
    assert times(out / "clip.mp4") == times(clip)
    assert packets(out / "clip.mp4", "audio") == packets(clip, "audio")
    alone = tmp_path / "alone.mp4"
    invoke(main, clip, "-o", alone, "--bundle", bundle.path, "--iters", 0)
    assert (out / "clip.mp4").read_bytes() == alone.read_bytes()


def test_a_second_run_does_only_what_is_missing_or_changed(
    bundle: Bundle, folder: Path, actor: Actor, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert batch(bundle, out, folder).made == 3
    actor.done.clear()
    assert batch(bundle, out, folder).kept == 3
    assert actor.done == []
    (out / "0.png").unlink()
    write_rgb(photo(11, 12, 99), folder / "1.png")
    os.utime(folder / "1.png", (1, 1))
    with open(out / FOLDER / "outputs.jsonl", "a") as file:
        file.write('{"target": "2.p')  # A run was killed here.
    report = batch(bundle, out, folder)
    assert (report.made, report.kept) == (2, 1)
    np.testing.assert_array_equal(read_rgb(out / "1.png"), repeated(photo(11, 12, 99)))
    assert batch(bundle, out, folder, sigma=2.0).made == 3
    assert batch(bundle, out, folder, sigma=2.0).kept == 3


def test_sizes_and_strengths_come_out_as_without_actors(
    bundle: Bundle, folder: Path, clip: Path, actor: Actor, tmp_path: Path
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    (folder / "clip.mp4").symlink_to(clip)
    wanted = Postprocessing(factor=1.5, strength=0.25)
    assert batch(bundle, out, folder, postprocessing=wanted).made == 4
    options = ("--bundle", bundle.path, "--iters", 0, "--estimate", "full")
    sizes = ("--factor", 1.5, "--strength", 0.25)
    done = invoke(main, folder, "-o", alone, *options, *sizes)
    assert done.exit_code == 0, done.stderr
    for file in alone.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    assert batch(bundle, out, folder, postprocessing=wanted).kept == 4
    # Other settings, other outputs; a size that is impossible fails for itself.
    assert batch(bundle, out, folder / "0.png", postprocessing=NO_POSTPROCESSING).made == 1
    huge = batch(bundle, out, folder, postprocessing=Postprocessing(width=65535, factor=None))
    assert len(huge.failures) == 4 and all("is impossible" in each for each in huge.failures)


def test_what_fails_is_reported_and_the_rest_is_made(
    bundle: Bundle, folder: Path, clip: Path, actor: Actor, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (folder / "0.png").write_bytes(b"no picture")
    (folder / "text.mp4").write_text("no clip")
    write_rgb(photo(5, 30), folder / "thin.png")
    actor.failing = True
    report = batch(bundle, out, folder, clip)
    text, piece, damaged, thin = report.failures
    assert text.startswith(f"'{folder / 'text.mp4'}' cannot be read as video")
    assert piece == f"'{clip}': chunk 2 of 2: the disk is on fire"
    assert damaged.startswith(f"'{folder / '0.png'}' cannot be read as an image")
    assert thin.startswith(f"'{folder / 'thin.png'}': a frame needs at least 8 pixels")
    visible = sorted(path.name for path in out.iterdir() if path.name != FOLDER)
    assert visible == ["1.png", "2.png"]
    actor.failing = False
    report = batch(bundle, out, clip)
    # The first piece is kept.
    assert len(actor.done) == 1 and report.made == 1
    assert numbers(out / "clip.mp4") == list(range(FRAMES))
    assert sorted(path.name for path in (out / FOLDER).iterdir()) == ["lock", "outputs.jsonl"]


def test_a_folder_of_outputs_has_one_run_at_a_time(
    bundle: Bundle, folder: Path, actor: Actor, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with open_run_state(out), pytest.raises(InputError, match="another run is writing"):
        batch(bundle, out, folder)
    assert batch(bundle, out, folder).made == 3


def test_tracking_is_refused_as_clips_are_cut(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"split among actors.*crops or full"):
        ActorSettings(bundle.path, UpscalerOptions(estimate="track"))
