from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from ikc_deploy import Bundle
from ikc_deploy.bundle.engine_store import read_engines
from ikc_deploy.cli.ikc_export import main
from ikc_deploy.loops import IKC
from tests.cli.running import assert_one_clear_line, invoke
from tests.half import half_bundle
from tests.machines import nvidia_smi
from tests.test_files import state


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
    assert all(set(precisions) == {"float16"} for precisions in facts["convolutions"].values())
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


@pytest.mark.parametrize(
    ("option", "place", "words"),
    [
        ("--out", "full", ["'full' is not a bundle and not empty", "'photo.jpg'"]),
        ("--out", "file", ["'file' is a file"]),
        ("--out", "file/x", ["is a file, not a folder"]),
        ("--out", ".", ["give a folder in it"]),
        ("--out", "/proc/x", ["'/proc/x' cannot be written"]),
        ("--out", "n" * 300, ["at most 255 bytes"]),
        ("--triton", "file", ["is a file, not a folder"]),
        ("--triton", "models", ["is not a model as ikc-export", "'notes'"]),
    ],
)
def test_what_would_be_lost_or_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, place: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "models" / "ikc").mkdir(parents=True)
    for name in ("full/photo.jpg", "file", "models/ikc/notes"):
        (tmp_path / name).write_text("mine")
    before = state(tmp_path)
    # Weights that are not there: nothing has looked for them.
    result = invoke(main, "--weights", "nothing", option, place)
    said = [word.replace("'full'", f"'{tmp_path / 'full'}'") for word in words]
    assert_one_clear_line(result, *said)
    assert state(tmp_path) == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a checkpoint")
    done = CliRunner().invoke(main, ["--weights", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "not a readable safetensors file" in " ".join(done.stderr.split())


@pytest.fixture
def half(tmp_path: Path) -> Bundle:
    return half_bundle(tmp_path / "half")


def target(folder: Path, *capabilities: str) -> Path:
    file = folder / "target.toml"
    file.write_text(f"compute_capabilities = {list(capabilities)}\nworkspace_mib = 512\n")
    return file


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, "exit 6")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_fp16_networks_become_three_plans_without_a_gpu(
    repository: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt_rtx")
    out = tmp_path / "x4"
    desktop = repository / "engines" / "rtx-desktop.toml"
    done = invoke(
        main,
        *("--weights", small_checkpoint, "--fp16", "--out", out, "--json"),
        *("--engine", "tensorrt-rtx", "--target", desktop),
    )
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    precisions = facts["engine"]["layer_precision"]
    convolutions = {graph: counts["CONVOLUTION"] for graph, counts in precisions.items()}
    assert {graph: set(counts) for graph, counts in convolutions.items()} == {
        graph: {"HALF"} for graph in IKC.graphs
    }
    for graph, counts in facts["convolutions"].items():
        assert convolutions[graph]["HALF"] == counts["float16"]
    (engine,) = read_engines(Bundle.open(out))
    assert engine.record.compute_capabilities == ("8.6", "8.9", "12.0")
    assert all(engine.plan_bytes(graph) > 1000 for graph in IKC.graphs)


def test_an_engine_is_added_to_a_bundle_that_is_there_and_shown(
    half: Bundle, tmp_path: Path, no_gpu: None
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt_rtx")
    file = target(tmp_path, "8.9")
    asked = ("--bundle", half.path, "--engine", "auto", "--target", file)
    done = invoke(main, *asked, "--shapes", "16x16:32x32:48x48")
    assert done.exit_code == 0, done.stderr
    assert "auto: not tensorrt, as tensorrt builds on the target GPU" in done.stderr
    assert "engine: tensorrt-rtx" in done.stderr
    assert "1x16x16 to 1x48x48, tuned for 1x32x32" in done.stdout
    assert "CONVOLUTION" in done.stdout and "1 HALF" in done.stdout
    again = invoke(main, *asked, "--shapes", "16x16:32x32:48x48")
    assert "had this engine already" in again.stderr
    assert len(read_engines(Bundle.open(half.path))) == 1


def test_tensorrt_without_its_gpu_leaves_a_complete_bundle(
    small_checkpoint: Path, tmp_path: Path, no_gpu: None
) -> None:
    out = tmp_path / "out"
    arguments = ("--weights", small_checkpoint, "--fp16", "--out", out, "--engine", "tensorrt")
    done = invoke(main, *arguments)
    mend = "builds on the target GPU itself, but there is no GPU here"
    assert_one_clear_line(done, mend, f"The bundle '{out}' is complete without it")
    bundle = Bundle.open(out)
    assert bundle.manifest.parity and read_engines(bundle) == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "t.toml"], "give --engine too"),
        (["--shapes", "64x64:64x64:64x64"], "give --engine too"),
        (["--engine", "auto", "--shapes", "64x64:32x32:64x64"], "got 64, 32, 64 for the height"),
        (["--engine", "auto", "--shapes", "64"], "MIN:OPT:MAX"),
        (["--engine", "auto", "--shapes", "4x4:4x4:8x8"], "at least 8 pixels on each side"),
        (["--engine", "auto", "--target", "no.toml"], "no target file at 'no.toml'"),
        (["--bundle", "b"], "give --usrnet, --engine, --verify or --triton"),
        (["--bundle", "b", "--engine", "auto", "--fp16"], "no option that changes it"),
        (["--bundle", "b", "--triton", "t", "--fp16"], "no option that changes it"),
        (["--bundle", "no-bundle", "--engine", "auto"], "'no-bundle' is not a bundle"),
    ],
)
def test_bad_engine_options_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_clear_line(invoke(main, *arguments), words)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_compute_capability_is_one_line(half: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt_rtx")
    file = target(tmp_path, "99.9")
    done = invoke(main, "--bundle", half.path, "--engine", "tensorrt-rtx", "--target", file)
    assert_one_clear_line(done, "does not support compute capability 99.9", "it builds for")
    assert Bundle.open(half.path).files == half.files


def test_a_bundle_becomes_a_model_repository(half: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    result = invoke(main, "--bundle", half.path, "--triton", folder)
    assert result.exit_code == 0, result.output
    names = ["ikc_predictor", "ikc_sftmd", "ikc_corrector", "ikc", "ikc_stream"]
    said = result.stdout.splitlines()[-5:]
    assert said == [f"Triton model {name}: {folder / name}" for name in names]
    result = invoke(main, "--bundle", half.path, "--triton", folder, "--json")
    assert json.loads(result.stdout)["triton"] == {name: str(folder / name) for name in names}
