from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ikc_deploy import Bundle
from ikc_deploy.cli.export import main


def test_fp16_export_prints_census_and_parity_as_json(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    arguments = ["--weights", str(small_checkpoint), "--fp16", "--out", str(out), "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["precision"] == "fp16"
    assert set(facts["convolutions"]) == {"predictor", "sftmd", "corrector"}
    assert all(set(census) == {"float16"} for census in facts["convolutions"].values())
    assert [step["step"] for step in facts["parity"]["steps"]] == [0, 1, 2, 3]
    assert Bundle.open(out).manifest.precision == "fp16"


def test_the_default_folder_is_named_after_weights_and_precision(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["--weights", str(small_checkpoint)])
    assert done.exit_code == 0, done.output
    assert "6 float32" in done.stdout
    assert Bundle.open(tmp_path / "export" / "small-fp32").manifest.name == "small"


def test_unknown_weights_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for spec in ("nothing", "random:x9", str(tmp_path)):
        done = CliRunner().invoke(main, ["--weights", spec, "--out", str(tmp_path / "out")])
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a checkpoint")
    done = CliRunner().invoke(main, ["--weights", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "not a readable safetensors file" in " ".join(done.stderr.split())
