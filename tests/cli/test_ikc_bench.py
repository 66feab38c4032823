from __future__ import annotations

import json
from pathlib import Path

import pytest

from ikc_deploy import Bundle
from ikc_deploy.benchmarks.report import BenchmarkReport
from ikc_deploy.cli.ikc_bench import main
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.networks.weights_loader import Weights
from tests.benchmarks.reports import report
from tests.cli.running import assert_one_clear_line, invoke

QUICK = ("--runs", 2, "--warmup", 0, "--threads", 1)


@pytest.fixture(autouse=True)
def quick_peak_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikc_deploy.benchmarks.peak_throughput._SIDE", 64)
    monkeypatch.setattr("ikc_deploy.benchmarks.peak_throughput._COPIED", 1 << 12)


def test_every_combination_is_measured_and_written(small_bundle: Bundle, tmp_path: Path) -> None:
    files = {kind: tmp_path / "new" / f"figures.{kind}" for kind in ("json", "csv", "html")}
    result = invoke(
        main,
        *(
            "--bundle",
            small_bundle.path,
            "--res",
            "16",
            "--res",
            "24x8",
            "--iters",
            0,
            "--iters",
            1,
        ),
        *("--batch", 2, *QUICK, "--no-memory"),
        *(word for kind, path in files.items() for word in (f"--{kind}", path)),
    )
    assert result.exit_code == 0, result.output
    written = BenchmarkReport.read(files["json"])
    found = [
        (r.case.height, r.case.width, r.case.batch, r.case.iters, r.sr) for r in written.results
    ]
    assert found == [
        (16, 16, 2, 0, (64, 64)),
        (16, 16, 2, 1, (64, 64)),
        (8, 24, 2, 0, (32, 96)),
        (8, 24, 2, 1, (32, 96)),
    ]
    for measured in written.results:
        (entry,) = measured.measurements
        assert (entry.library, entry.precision, len(entry.ms)) == ("onnxruntime", "fp32", 2)
        assert sum(entry.stages_ms.values()) <= entry.latency_ms.mean
        assert entry.macs and entry.peak_memory_mib is None
        assert f"{entry.latency_ms.median:.1f}" in result.stdout
    assert len(files["csv"].read_text().splitlines()) == 5
    assert "Latency by size" in files["html"].read_text()
    assert str(tmp_path) not in files["json"].read_text()
    assert len(result.stderr.splitlines()) == 4


def test_candidates_take_turns_and_a_dash_prints_json(small_checkpoint: Path) -> None:
    result = invoke(
        main,
        *("--weights", small_checkpoint, "--compare", "reference-loop,torch-eager"),
        *("--res", 8, "--iters", 1, *QUICK, "--json", "-"),
    )
    assert result.exit_code == 0, result.output
    (measured,) = json.loads(result.stdout)["results"]
    assert [entry["candidate"] for entry in measured["measurements"]] == [
        "reference-loop",
        "torch-eager",
    ]
    assert all(entry["peak_memory_mib"] > 10 for entry in measured["measurements"])
    assert {(pair["of"], pair["to"]) for pair in measured["ratios"]} == {
        ("reference-loop", "torch-eager"),
        ("torch-eager", "reference-loop"),
    }


def test_a_suite_writes_a_file_for_each_plan(small_checkpoint: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'[small]\nweights = ["{small_checkpoint}"]\nres = ["8"]\niters = [0]\nruns = 1\n'
        'warmup = 0\nthreads = 1\nmemory = false\ncompare = "torch-eager"\n'
    )
    result = invoke(main, "--suite", suite, "--out", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"small.json", "small.html"}
    assert len(BenchmarkReport.read(tmp_path / "results" / "small.json").results) == 1


def test_the_difference_of_two_reports_is_marked(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(report().to_json())
    new.write_text(report(1.3).to_json())
    result = invoke(main, "--diff", old, new)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("slower") == 4 and "1.300" in result.stdout
    same = invoke(main, "--diff", old, old)
    assert "slower" not in same.stdout and "same" in same.stdout


def test_half_precision_weights_have_a_place_of_their_own_in_the_cache(
    small_bundle: Bundle,
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported: dict[str, ExportSettings] = {}

    def export(weights: Weights, folder: Path, settings: ExportSettings) -> Bundle:
        exported[folder.name[-5:]] = settings
        return small_bundle

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("ikc_deploy.export.exporter.export_bundle", export)
    for option in ("--fp16", "--fp32", "--int8"):
        arguments = ("--weights", small_checkpoint, option, "--res", 8, "--iters", 0)
        result = invoke(main, *arguments, *QUICK, "--no-memory")
        assert result.exit_code == 0, result.output
    assert exported == {
        f"-{precision}": ExportSettings(precision) for precision in ("fp16", "fp32", "int8")
    }


@pytest.mark.parametrize("size", ["0", "abc", "12x", "x12", "-5", "7", "16x7", "1e2", "", "8x8x8"])
def test_an_impossible_size_is_one_line(size: str) -> None:
    assert_one_clear_line(invoke(main, "--res", size))


@pytest.mark.parametrize("option", ["--iters", "--threads", "--runs", "--batch"])
def test_an_impossible_count_is_one_line(option: str) -> None:
    assert_one_clear_line(invoke(main, option, -1), f"{option.removeprefix('--')} must be at least")


def test_options_that_contradict_each_other_are_one_line(small_bundle: Bundle) -> None:
    bundle = ("--bundle", small_bundle.path)
    assert_one_clear_line(invoke(main, *bundle, "--weights", "x4-lite"), "not both")
    assert_one_clear_line(invoke(main, *bundle, "--fp16"), "is an fp32 bundle")
    assert_one_clear_line(invoke(main, *bundle, "--backend", "gpu"), "'gpu-fp32'", "auto-fp32")
    assert_one_clear_line(invoke(main, "--suite", "s.toml"), "give both")
    assert_one_clear_line(invoke(main, "--compare", "nobody"), "does not know 'nobody'")


def test_unknown_weights_are_one_line() -> None:
    assert_one_clear_line(invoke(main, "--weights", "nope"), "unknown weights 'nope'")


@pytest.mark.parametrize("option", ["--json", "--csv", "--html"])
def test_a_folder_for_a_file_is_refused_before_the_measurement(tmp_path: Path, option: str) -> None:
    assert_one_clear_line(invoke(main, option, tmp_path), "is a folder")


def test_a_file_that_is_no_report_is_one_line(tmp_path: Path) -> None:
    assert_one_clear_line(invoke(main, "--diff", tmp_path / "a", tmp_path / "b"))
