from __future__ import annotations

import json
from pathlib import Path

import pytest

from ikc_deploy import Bundle
from ikc_deploy.cli.bench import main
from ikc_deploy.export.exporter import ExportSettings
from ikc_deploy.networks.weights import Weights
from tests.cli.running import assert_one_clear_line, invoke

QUICK = ("--runs", 2, "--threads", 1)


@pytest.fixture(autouse=True)
def one_warm_up_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikc_deploy.benchmarks.latency.WARM_UP_SECONDS", 0.0)


@pytest.fixture
def no_memory_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikc_deploy.benchmarks.latency.peak_memory_mib", lambda *_: 12.5)


def test_every_size_and_count_is_a_row_and_an_entry(
    small_bundle: Bundle, tmp_path: Path, no_memory_runs: None
) -> None:
    path = tmp_path / "new" / "figures.json"
    sizes = ("--res", "16", "--res", "24x8", "--iters", 0, "--iters", 1)
    result = invoke(main, "--bundle", small_bundle.path, *sizes, *QUICK, "--json", path)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert set(report) == {"machine", "results"}
    entries = report["results"]
    found = [(entry["lr"], entry["sr"], entry["iters"]) for entry in entries]
    assert found == [
        ([16, 16], [64, 64], 0),
        ([16, 16], [64, 64], 1),
        ([8, 24], [32, 96], 0),
        ([8, 24], [32, 96], 1),
    ]
    assert report["machine"]["cpu"] in result.stdout
    for name in ("small", "fp32", "onnxruntime", f"numpy {report['machine']['packages']['numpy']}"):
        assert name in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[-1:] == ["12"]]
    for row, entry in zip(rows, entries, strict=True):
        assert row[1:3] == ["x".join(map(str, entry[key][::-1])) for key in ("lr", "sr")]
        assert row[3] == f"{entry['latency_ms']['p50']:.1f}"
    assert len(result.stderr.splitlines()) == len(entries)


def test_a_dash_prints_json_alone(small_bundle: Bundle) -> None:
    result = invoke(
        main, "--bundle", small_bundle.path, "--res", 8, "--iters", 0, *QUICK, "--json", "-"
    )
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(result.stdout)["results"]
    assert set(entry["latency_ms"]) == {"p50", "p90", "p99", "mean", "min"}
    assert set(entry["stages_ms"]) == {"predictor", "sftmd", "corrector"}
    assert entry["peak_memory_mib"] > 0


def test_half_precision_weights_have_a_place_of_their_own_in_the_cache(
    small_bundle: Bundle,
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_memory_runs: None,
) -> None:
    exported: dict[str, ExportSettings] = {}

    def export(weights: Weights, folder: Path, settings: ExportSettings) -> Bundle:
        exported[folder.name[-5:]] = settings
        return small_bundle

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("ikc_deploy.export.exporter.export_bundle", export)
    for option in ("--fp16", "--fp32"):
        arguments = ("--weights", small_checkpoint, option, "--res", 8, "--iters", 0)
        result = invoke(main, *arguments, *QUICK)
        assert result.exit_code == 0, result.output
    assert exported == {"-fp16": ExportSettings("fp16"), "-fp32": ExportSettings("fp32")}


@pytest.mark.parametrize("size", ["0", "abc", "12x", "x12", "-5", "7", "16x7", "1e2", "", "8x8x8"])
def test_an_impossible_size_is_one_line(size: str) -> None:
    assert_one_clear_line(invoke(main, "--res", size))


@pytest.mark.parametrize("option", ["--iters", "--threads", "--runs"])
def test_an_impossible_count_is_one_line(option: str) -> None:
    assert_one_clear_line(invoke(main, option, -1), f"{option.removeprefix('--')} must be at least")


def test_options_that_contradict_each_other_are_one_line(small_bundle: Bundle) -> None:
    bundle = ("--bundle", small_bundle.path)
    assert_one_clear_line(invoke(main, *bundle, "--weights", "x4-lite"), "not both")
    assert_one_clear_line(invoke(main, *bundle, "--fp16"), "is an fp32 bundle")
    assert_one_clear_line(invoke(main, *bundle, "--backend", "gpu"), "no backend 'gpu'", "auto")


def test_unknown_weights_are_one_line() -> None:
    assert_one_clear_line(invoke(main, "--weights", "nope"), "'nope' is neither")


def test_a_folder_for_the_json_is_refused_before_the_measurement(tmp_path: Path) -> None:
    assert_one_clear_line(invoke(main, "--json", tmp_path), "is a folder")
