from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from ikc_deploy.benchmarks.compare import compare_reports, same_machine
from ikc_deploy.benchmarks.report import BenchmarkReport
from ikc_deploy.errors import InputError
from tests.benchmarks.reports import MACHINE, report

NOISE = (0.5, 1, 1.5, 0.6, 1.4)


def test_a_report_survives_json(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(report().to_json())
    assert BenchmarkReport.read(path) == report()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 99}', '{"schema": 1, "results": 3}']
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError, match="measure again"):
        BenchmarkReport.read(path)


def test_csv_has_a_line_for_each_case_and_candidate() -> None:
    lines = list(csv.DictReader(io.StringIO(report().to_csv())))
    assert [(line["candidate"], line["height"]) for line in lines] == [
        ("onnxruntime-fp32", "32"),
        ("reference-loop", "32"),
        ("onnxruntime-fp32", "64"),
        ("reference-loop", "64"),
    ]
    ours = report().results[0].measurements[0]
    assert float(lines[0]["median_ms"]) == ours.latency_ms.median
    assert float(lines[0]["share_of_peak"]) == pytest.approx((ours.gflops or 0) / 200)


def test_only_changes_beyond_noise_are_marked() -> None:
    verdicts = {
        slowdown: {change.verdict for change in compare_reports(report(), report(slowdown))}
        for slowdown in (1.0, 1.02, 1.3, 0.7)
    }
    assert verdicts == {1.0: {"same"}, 1.02: {"same"}, 1.3: {"slower"}, 0.7: {"faster"}}


def test_a_wide_spread_hides_a_change() -> None:
    new = report(1.1)
    noisy = tuple(
        replace(
            result,
            measurements=tuple(
                replace(entry, ms=tuple(ms * f for ms, f in zip(entry.ms, NOISE, strict=True)))
                for entry in result.measurements
            ),
        )
        for result in new.results
    )
    found = compare_reports(report(), replace(new, results=noisy))
    assert len(found) == 4 and {change.verdict for change in found} == {"same"}


def test_the_load_does_not_make_another_machine_but_the_cpu_does() -> None:
    other = replace(report(), machine=MACHINE | {"load": 5.0})
    assert same_machine(report(), other)
    assert not same_machine(report(), replace(report(), machine=MACHINE | {"cpu": "other"}))
