from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from ikc_deploy import Bundle
from ikc_deploy.batch.settings import ActorSettings
from ikc_deploy.batch.tasks import Task, TaskOutcome, run_task
from ikc_deploy.cli.ikc_upscale import main
from ikc_deploy.imaging.writing import write_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo
from tests.video.clips import make_clip, numbered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rgb(photo(12, 16), tmp_path / "in" / "a.png")
    make_clip(tmp_path / "in" / "b.mp4", map(numbered, range(5)))
    return tmp_path / "in"


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, but for Ray: the tasks are done here, in order."""

    def run(
        tasks: Sequence[Task], upscaler: ActorSettings, *_: Any
    ) -> Iterator[tuple[int, TaskOutcome]]:
        with upscaler.open() as opened:
            for number, task in enumerate(tasks):
                yield number, run_task(task, opened, upscaler.sigma)

    monkeypatch.setattr("ikc_deploy.batch.cluster.find_spec", lambda _: "a spec")
    monkeypatch.setattr("ikc_deploy.batch.run.connected", lambda _: nullcontext())
    monkeypatch.setattr("ikc_deploy.batch.run.run_tasks", run)


@pytest.mark.usefixtures("inline")
def test_a_folder_of_pictures_and_clips(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--ray", "-o", out, "--bundle", bundle.path, "--iters", 0)
    result = invoke(main, folder, *options)
    assert result.exit_code == 0, result.output
    clip, picture = result.stdout.splitlines()
    assert clip == f"{out / 'b.mp4'}: 5 frames"
    assert picture.startswith(f"{out / 'a.png'}: 16x12 -> 64x48, sigma ")
    assert result.stderr == ""
    assert invoke(main, folder, *options).stdout == "2 were complete already\n"
    (out / "b.mp4").unlink()
    result = invoke(main, folder, *options, "--json")
    facts = {"input": str(folder / "b.mp4"), "output": str(out / "b.mp4"), "frames": 5}
    assert json.loads(result.stdout) == facts


@pytest.mark.usefixtures("inline")
def test_failures_come_at_the_end_with_exit_code_2(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    (folder / "c.png").write_bytes(b"no picture")
    result = invoke(main, folder, "--ray", "-o", tmp_path / "out", "--bundle", bundle.path)
    assert result.exit_code == 2
    heading, damaged = result.stderr.splitlines()
    assert heading == "error: 1 of 3 outputs failed; a second run retries only these:"
    assert damaged.startswith(f"'{folder / 'c.png'}' cannot be read as an image")


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("in",), ("name the inputs, and the folder",)),
        (("-o", "out"), ("name the inputs, and the folder",)),
        (("gone", "-o", "out"), ("no image, clip or folder 'gone'",)),
        (("in", "-o", "out", "--resume", "--start", "1"), ("--start, --resume", "leave out --ray")),
        (("in", "-o", "out", "--save-steps", "s"), ("--save-steps",)),
        (("in", "-o", "out", "--preview"), ("--preview: only without --ray",)),
        (("in", "-o", "out", "--size", "9x9", "--factor", "2"), ("--size and --factor",)),
        (("in", "-o", "out", "--sigma", "9"), ("sigma must lie in",)),
        (("in", "-o", "in"), ("would be overwritten",)),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    bundle: Bundle,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(folder.parent)
    before = sorted(Path().rglob("*"))
    result = invoke(main, "--ray", *arguments, "--bundle", bundle.path)
    assert_one_clear_line(result, *words)
    assert sorted(Path().rglob("*")) == before


def test_its_companions_need_ray(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    for options in (("--actors", 2), ("--address", "auto")):
        result = invoke(main, folder, "-o", tmp_path / "out", "--bundle", bundle.path, *options)
        assert_one_clear_line(result, "give --ray too")


def test_without_ray_the_extra_is_named(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ikc_deploy.batch.cluster.find_spec", lambda _: None)
    result = invoke(main, folder, "--ray", "-o", tmp_path / "out", "--bundle", bundle.path)
    assert_one_clear_line(result, "--ray needs the module 'ray'", "ikc-deploy[ray]")
    assert not (tmp_path / "out").exists()
