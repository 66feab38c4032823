"""The tables of a report as plain text cells; terminal, Markdown and HTML show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ikc_deploy.benchmarks.compare import Change
from ikc_deploy.benchmarks.interleaved import CaseResult, Measurement
from ikc_deploy.benchmarks.report import BenchmarkReport, ratio
from ikc_deploy.reporting.tables import Table

BASELINE: Final = "reference-loop"
"""Baseline of the ratios where it ran; otherwise the case's first candidate."""


def machine_lines(report: BenchmarkReport) -> list[str]:
    """Return lines that describe the machine, its system and versions, and its peak throughput."""
    machine = report.machine
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    versions = {"python": machine["python"]} | machine["packages"]
    peaks = (
        f"{name} {peak.gflops:.0f} GFLOP/s and {peak.gigabytes:.0f} GB/s"
        for name, peak in report.peak_throughput.items()
    )
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}",
        f"{machine['os']}, load {machine['load']} before the bench",
        ", ".join(f"{name} {version or '-'}" for name, version in versions.items()),
        f"peak throughput (float32 matrix product, copy): {', '.join(peaks) or 'not measured'}",
    ]


def latency_table(report: BenchmarkReport, subject: str) -> Table:
    """Return the table of every case and candidate of one subject."""
    results = [result for result in report.results if result.subject == subject]
    header = (
        *("LR", "iters", "batch", "candidate", "library", "median ms", "25..75 %", "ratio"),
        *("fps", "P/F/C %", "overhead %", "GFLOP/s", "of peak %", "MiB"),
    )
    rows = tuple(
        (*_case(result), *_measurement(report, result, measurement))
        for result in results
        for measurement in result.measurements
    )
    names = " or ".join(dict.fromkeys(_baseline(result) for result in results))
    return Table(f"{subject}; ratio: time over that of {names}, round by round", header, rows)


def skipped_lines(report: BenchmarkReport) -> list[str]:
    """Return a line for each candidate that did not run, with the reason."""
    reasons = {
        f"{name}: {reason}" for result in report.results for name, reason in result.skipped.items()
    }
    return sorted(reasons)


def ratio_table(result: CaseResult) -> Table:
    """Return the table of our times (rows) over those of all candidates (columns) in one case."""
    names = [measurement.candidate for measurement in result.measurements]
    rows = []
    for measurement in result.measurements:
        if measurement.ours:
            cells = (_ratio(result, measurement.candidate, name) for name in names)
            rows.append((measurement.candidate, *cells))
    title = f"{result.subject}, {result.case}: time over time, median of the rounds"
    return Table(title, ("", *names), tuple(rows))


def quality_table(report: BenchmarkReport) -> Table:
    """Return the table of the PSNR-Y of our candidates."""
    rows = tuple(
        (q.subject, q.candidate, str(q.iters), q.dataset, str(q.images), f"{q.psnr_y:.2f}")
        for q in report.qualities
    )
    header = ("weights", "candidate", "iters", "images of", "images", "PSNR-Y dB")
    return Table("Gaussian8, last step", header, rows)


def change_table(changes: Sequence[Change]) -> Table:
    """Return the table of the changes between two reports."""
    header = ("weights", "candidate", "case", "old ms", "new ms", "new/old", "95 %", "verdict")
    rows = tuple(
        (
            change.subject,
            change.candidate,
            change.case,
            f"{change.old_ms:.1f}",
            f"{change.new_ms:.1f}",
            f"{change.ratio:.3f}",
            f"{change.low:.3f}..{change.high:.3f}",
            change.verdict,
        )
        for change in changes
    )
    return Table("new against old", header, rows)


def _baseline(result: CaseResult) -> str:
    names = [measurement.candidate for measurement in result.measurements]
    return BASELINE if BASELINE in names else names[0]


def _case(result: CaseResult) -> tuple[str, str, str]:
    case = result.case
    return f"{case.width}x{case.height}", str(case.iters), str(case.batch)


def _measurement(
    report: BenchmarkReport, result: CaseResult, measurement: Measurement
) -> tuple[str, ...]:
    summary = measurement.latency_ms
    share = report.share_of_peak(measurement)
    stages = "/".join(f"{100 * ms / summary.mean:.0f}" for ms in measurement.stages_ms.values())
    return (
        measurement.candidate,
        measurement.library,
        f"{summary.median:.1f}",
        f"{summary.q25:.1f}..{summary.q75:.1f}",
        _ratio(result, measurement.candidate, _baseline(result)),
        f"{measurement.fps:.3g}",
        stages,
        f"{100 * measurement.overhead:.1f}",
        "" if measurement.gflops is None else f"{measurement.gflops:.0f}",
        "" if share is None else f"{100 * share:.0f}",
        "" if measurement.peak_memory_mib is None else f"{measurement.peak_memory_mib:.0f}",
    )


def _ratio(result: CaseResult, of: str, to: str) -> str:
    found = ratio(result, of, to)
    return "" if found is None else f"{found.median:.2f}"
