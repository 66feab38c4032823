"""Real Ray, two actors: the same bytes as without, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ikc_deploy import Bundle
from ikc_deploy.imaging.writing import write_rgb
from tests.samples import photo

pytest.importorskip("ray", reason="Ray is not installed; `make test-scale` installs it")

from ikc_deploy.batch.cluster import DEATHS
from ikc_deploy.batch.run import run_batch
from ikc_deploy.batch.run_state import FOLDER
from ikc_deploy.batch.settings import ActorSettings, BatchSettings, ClusterSettings
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.video.encoder_settings import EncoderSettings
from tests.video.clips import make_clip

PICTURES = 24
FRAMES = 270
HEIGHT, WIDTH = 24, 32
"""The output is 128 pixels wide: x264 does not repeat itself on narrower ones (docs/batch.md)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures, and a clip with sound in three pieces, two of them too long for one file."""
    folder = tmp_path_factory.mktemp("in")
    for number in range(PICTURES):
        write_rgb(photo(12 + number % 5, 16 + number % 3, number), folder / f"{number:02d}.png")
    wide = photo(HEIGHT, FRAMES + WIDTH)
    frames = (np.ascontiguousarray(wide[:, left : left + WIDTH]) for left in range(FRAMES))
    coding = {"g": "130", "sc_threshold": "0"}
    make_clip(folder / "clip.mp4", frames, audio=True, coding=coding)
    return folder


@pytest.fixture(scope="module")
def local(bundle: Bundle, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes out without Ray."""
    out = tmp_path_factory.mktemp("local")
    # Tracked, as clips are by default, frames would depend on those before; pieces cannot.
    upscale(bundle, folder, "-o", out, "--estimate", "full")
    return out


def upscale(bundle: Bundle, *arguments: Any) -> str:
    """What ikc-upscale prints."""
    options = ["--bundle", bundle.path, "--iters", 1, "--threads", 1]
    command = [sys.executable, "-m", "ikc_deploy.cli.ikc_upscale", *arguments, *options]
    # Where nothing answers: a run without --address must not look for a cluster.
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:9"}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_two_actors_make_the_same_bytes_as_one_process(
    bundle: Bundle, folder: Path, local: Path, tmp_path: Path
) -> None:
    said = upscale(bundle, "--ray", "--actors", 2, folder, "-o", tmp_path)
    assert len(said.splitlines()) == PICTURES + 1
    assert f"{tmp_path / 'clip.mp4'}: {FRAMES} frames" in said
    assert contents(tmp_path) == contents(local)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["lock", "outputs.jsonl"]
    (tmp_path / "07.png").unlink()
    said = upscale(bundle, "--ray", "--actors", 2, folder, "-o", tmp_path)
    assert said.splitlines()[0].startswith(str(tmp_path / "07.png"))
    assert said.splitlines()[1:] == ["24 were complete already"]
    assert contents(tmp_path) == contents(local)


@contextmanager
def killing(scratch: Path, victims: dict[str, int]) -> Iterator[dict[str, set[int]]]:
    """Kill, with signal 9, the processes that work on the tasks named in `victims`, so many times.

    Yields the ids of those that were killed, by task.
    """
    killed: dict[str, set[int]] = {task: set() for task in victims}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.003):
            for task, times in victims.items():
                # The file goes when its task is done.
                with suppress(FileNotFoundError):
                    workers = (scratch / task).read_text().split()
                    worker = int(workers[-1]) if workers else 0
                    if worker and len(killed[task]) < times and worker not in killed[task]:
                        killed[task].add(worker)
                        os.kill(worker, signal.SIGKILL)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        ended.set()
        watcher.join()


def test_killed_actors_lose_nothing_and_a_deadly_input_does_not_stop_the_rest(
    bundle: Bundle, folder: Path, local: Path, tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly.png"
    write_rgb(photo(96, 96), deadly)
    out = tmp_path / "out"
    settings = BatchSettings(
        (folder, deadly),
        out,
        ActorSettings(bundle.path, UpscalerOptions(iters=1, threads=1)),
        EncoderSettings(),
        ClusterSettings(actors=2),
    )
    # Tasks are numbered as they are planned: the pieces of the clip, then the pictures.
    victims = {"1": 1, str(2 + PICTURES + 1): DEATHS}
    with killing(out / FOLDER / "scratch", victims) as killed:
        report = run_batch(settings)
    assert {task: len(workers) for task, workers in killed.items()} == victims
    assert contents(out) == contents(local)
    assert (report.made, report.kept) == (PICTURES + 1, 0)
    assert report.failures == [f"'{deadly}': the process that ran this task died {DEATHS} times"]
