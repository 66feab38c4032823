from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ikc_deploy.cli.train import main
from ikc_deploy.images import write_rgb
from ikc_deploy.networks.checkpoints import load_checkpoint
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo


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

    monkeypatch.setattr("ikc_deploy.training.jobs.train", interrupted)
    result = invoke(main, smoke, "--out", tmp_path / "run", "--data", tmp_path)
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"
