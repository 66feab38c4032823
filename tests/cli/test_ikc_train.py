from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ikc_deploy.cli.ikc_train import main
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.locks import locked
from ikc_deploy.networks.checkpoints import load_checkpoint
from ikc_deploy.training import step_size_search
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo


@pytest.fixture(autouse=True)
def _brief_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search the step size on four crops: on all, it would take most of the time of a run."""
    monkeypatch.setattr(step_size_search, "_BATCHES", 2)


@pytest.fixture
def smoke(repository: Path) -> str:
    return str(repository / "training" / "smoke.toml")


def test_a_smoke_run_writes_a_checkpoint_and_refuses_to_start_twice(
    smoke: str, tmp_path: Path
) -> None:
    write_rgb(photo(64, 64), tmp_path / "images" / "0.png")
    arguments = (smoke, "--out", tmp_path / "run", "--data", tmp_path / "images")
    result = invoke(main, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'run' / 'checkpoint.safetensors'}\n"
    assert load_checkpoint(result.stdout.strip()).architecture.name == "smoke"
    assert_one_clear_line(invoke(main, *arguments), "already holds a run", "--resume")


@pytest.mark.parametrize(
    "name", ["notes.txt", "weights-sftmd-1.pt", "checkpoint.safetensors", "log.jsonl", "run.json"]
)
def test_a_run_is_not_begun_in_a_folder_with_anything_else(
    smoke: str, tmp_path: Path, name: str
) -> None:
    write_rgb(photo(64, 64), tmp_path / "images" / "0.png")
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text("{}")
    arguments = (smoke, "--out", run, "--data", tmp_path / "images")
    assert_one_clear_line(invoke(main, *arguments), f"'{name}'", "would be lost")
    assert [path.name for path in run.iterdir()] == [name]


def test_a_run_killed_before_it_saved_is_begun_again_and_two_at_once_are_not(
    smoke: str, tmp_path: Path
) -> None:
    write_rgb(photo(64, 64), tmp_path / "images" / "0.png")
    run = tmp_path / "run"
    program = """
import os, signal, sys
from ikc_deploy.cli.ikc_train import main
from ikc_deploy.training import runs
def killed(path, data):
    if path.name == "state.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
write, runs.write_atomically = runs.write_atomically, killed
main(sys.argv[1:])
"""
    arguments = (smoke, "--out", run, "--data", tmp_path / "images")
    command = [sys.executable, "-c", program, *map(str, arguments)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert any(path.name.startswith("weights-") for path in run.iterdir())
    with locked(run):
        other = [sys.executable, "-m", "ikc_deploy.cli.ikc_train", *map(str, arguments)]
        done = subprocess.run(other, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"is being written by process {os.getpid()}" in done.stderr
    (run / "weights-mine.pt").write_text("mine")
    assert_one_clear_line(invoke(main, *arguments), "'weights-mine.pt'")
    (run / "weights-mine.pt").rename(tmp_path / "weights-mine.pt")
    assert invoke(main, *arguments).exit_code == 0
    # Only state that is ours is swept, and nothing but the newest is left.
    assert len(list(run.glob("weights-*.pt"))) == 1


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unusable_device_is_one_line(smoke: str, tmp_path: Path, device: str) -> None:
    result = invoke(main, smoke, "--out", tmp_path / "run", "--device", device)
    assert_one_clear_line(result, f"'{device}' cannot be used")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("minutes", ["nan", "inf", "-inf", "-1", "0", "soon"])
def test_impossible_minutes_are_refused(smoke: str, tmp_path: Path, minutes: str) -> None:
    result = invoke(main, smoke, "--out", tmp_path / "run", "--minutes", minutes)
    assert result.exit_code == 2
    assert "Invalid value for '--minutes'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_tensorboard_that_is_missing_is_named_with_its_extra(
    smoke: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rgb(photo(64, 64), tmp_path / "images" / "0.png")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    result = invoke(main, smoke, "--out", tmp_path / "run", "--data", tmp_path / "images")
    assert_one_clear_line(result, "'tensorboard'", "ikc-deploy[training]")
    assert not (tmp_path / "run").exists()


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    # Square brackets are markup to the console and must come out as they are.
    missing = tmp_path / "[gone].toml"
    result = invoke(main, missing, "--out", tmp_path / "run")
    assert_one_clear_line(result, f"there is no recipe at '{missing}'")


def test_an_empty_folder_of_images_is_one_line(smoke: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    result = invoke(main, smoke, "--out", tmp_path / "run", "--data", tmp_path / "images")
    assert_one_clear_line(result, str(tmp_path / "images"), "has no images")


def test_a_run_that_cannot_be_written_is_one_line(smoke: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke(main, smoke, "--out", tmp_path / "file" / "run", "--data", tmp_path)
    assert_one_clear_line(result, str(tmp_path / "file"))


def test_an_interrupted_run_says_so_without_a_traceback(
    smoke: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ikc_deploy.training.trainer.train", interrupted)
    result = invoke(main, smoke, "--out", tmp_path / "run", "--data", tmp_path)
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"
