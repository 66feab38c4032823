"""The training of a GPU visit, rehearsed on the CPU."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.networks.checkpoints import load_checkpoint
from ikc_deploy.training import step_size_search
from tests.samples import photo
from tools.gpu_visit import main


@pytest.fixture(autouse=True)
def _brief_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search the step size on four crops: on all, it would take most of the time of a run."""
    monkeypatch.setattr(step_size_search, "_BATCHES", 2)


def plan(folder: Path, smoke: Path) -> Path:
    (folder / "first.toml").write_text(smoke.read_text())
    second = smoke.read_text().replace('name = "smoke"\nseed', 'name = "more"\nseed')
    (folder / "second.toml").write_text(second)
    seconds = "{ predictor = 1, sftmd = 2, corrector = 1, joint = 1 }"
    path = folder / "plan.toml"
    path.write_text(
        f'[[runs]]\nrecipe = "first.toml"\nseconds = {seconds}\n'
        f'[[runs]]\nrecipe = "second.toml"\ninit_from = "first.toml"\nseconds = {seconds}\n'
    )
    return path


def test_a_visit_trains_its_runs_and_brings_them_back(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        write_rgb(photo(64, 60, number), tmp_path / "images" / f"{number}.png")
    path = plan(tmp_path, repository / "training" / "smoke.toml")
    out = tmp_path / "out"
    arguments = ["train", "--data", str(tmp_path / "images"), "--out", str(out), "--seconds", "2"]
    arguments += ["--device", "cpu", "--plan", str(path), "--trial-steps", "6"]
    with caplog.at_level(logging.WARNING):
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    speeds = json.loads((out / "speeds.json").read_text())
    for name in ("smoke", "more"):
        networks = load_checkpoint(out / f"{name}.safetensors")
        assert all(p.isfinite().all() for m in networks.modules().values() for p in m.parameters())
        steps = speeds[name]["steps"]
        assert set(steps) == {"predictor", "sftmd", "corrector", "joint"}
        assert all(seconds > 0 for seconds in speeds[name]["seconds_per_step"].values())
        last = [json.loads(x) for x in (out / f"{name}.log.jsonl").read_text().splitlines()][-1]
        assert (last["stage"], last["step"]) == ("joint", steps["joint"])
    # The second run begins with the basis of the first, so that their codes agree.
    first, second = (load_checkpoint(out / f"{name}.safetensors") for name in ("smoke", "more"))
    assert first.basis.id == second.basis.id
    ours, theirs = (next(each.modules()["sftmd"].parameters()) for each in (first, second))
    assert not torch.equal(ours, theirs)
    assert caplog.records == []


def test_what_travels_is_packed_within_the_limit(tmp_path: Path) -> None:
    for number in range(3):
        write_rgb(photo(40, 40, number), tmp_path / "set" / f"{number}.png")
    (tmp_path / "set_gpu40.txt").write_text("0.png\n2.png\n")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").write_bytes(bytes(1000))
    arguments = ["pack", "--images", str(tmp_path / "set_gpu40.txt")]
    arguments += ["--wheels", str(tmp_path / "wheels"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    packed = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")
    }
    assert packed == {"data/0.png", "data/2.png", "wheels/a.whl"}
    (tmp_path / "wheels" / "b.whl").write_bytes(bytes(64 * 2**20))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1 and "more than 62 MiB" in done.output
