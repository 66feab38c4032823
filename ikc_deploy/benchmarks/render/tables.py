"""The tables of a report as plain text cells; terminal, Markdown and HTML show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ikc_deploy.benchmarks.difference import Change
from ikc_deploy.benchmarks.race import Entry, Result
from ikc_deploy.benchmarks.report import Report, ratio
from ikc_deploy.evaluation.render.tables import Table

BASELINE: Final = "reference-loop"
"""What ratios are to, where it ran; else to the case's first contestant."""


def machine_lines(report: Report) -> list[str]:
    """The machine, its system and versions, and its ceiling."""
    machine = report.machine
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    versions = {"python": machine["python"]} | machine["packages"]
    ceilings = (
        f"{name} {ceiling.gflops:.0f} GFLOP/s and {ceiling.gigabytes:.0f} GB/s"
        for name, ceiling in report.ceilings.items()
    )
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}",
        f"{machine['os']}, load {machine['load']} before the bench",
        ", ".join(f"{name} {version or '-'}" for name, version in versions.items()),
        f"ceiling (float32 matrix product, copy): {', '.join(ceilings) or 'not measured'}",
    ]


def latency_table(report: Report, subject: str) -> Table:
    """Every case and contestant of one subject."""
    results = [result for result in report.results if result.subject == subject]
    header = (
        *("LR", "iters", "batch", "contestant", "library", "median ms", "25..75 %", "ratio"),
        *("fps", "P/F/C %", "overhead %", "GFLOP/s", "of ceiling %", "MiB"),
    )
    rows = tuple(
        (*_case(result), *_entry(report, result, entry))
        for result in results
        for entry in result.entries
    )
    names = " or ".join(dict.fromkeys(_baseline(result) for result in results))
    return Table(f"{subject}; ratio: time over that of {names}, round by round", header, rows)


def skipped_lines(report: Report) -> list[str]:
    """Who did not run, and why; each once."""
    reasons = {
        f"{name}: {reason}" for result in report.results for name, reason in result.skipped.items()
    }
    return sorted(reasons)


def ratio_table(result: Result) -> Table:
    """Time of ours (rows) over that of everyone (columns) in one case."""
    names = [entry.contestant for entry in result.entries]
    rows = []
    for entry in result.entries:
        if entry.ours:
            cells = (_ratio(result, entry.contestant, name) for name in names)
            rows.append((entry.contestant, *cells))
    title = f"{result.subject}, {result.case}: time over time, median of the rounds"
    return Table(title, ("", *names), tuple(rows))


def quality_table(report: Report) -> Table:
    """PSNR-Y of ours."""
    rows = tuple(
        (q.subject, q.contestant, str(q.iters), q.dataset, str(q.images), f"{q.psnr_y:.2f}")
        for q in report.qualities
    )
    header = ("weights", "contestant", "iters", "images of", "images", "PSNR-Y dB")
    return Table("Gaussian8, last step", header, rows)


def change_table(changes: Sequence[Change]) -> Table:
    """What changed between two reports."""
    header = ("weights", "contestant", "case", "old ms", "new ms", "new/old", "95 %", "verdict")
    rows = tuple(
        (
            change.subject,
            change.contestant,
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


def _baseline(result: Result) -> str:
    names = [entry.contestant for entry in result.entries]
    return BASELINE if BASELINE in names else names[0]


def _case(result: Result) -> tuple[str, str, str]:
    case = result.case
    return f"{case.width}x{case.height}", str(case.iters), str(case.batch)


def _entry(report: Report, result: Result, entry: Entry) -> tuple[str, ...]:
    spread = entry.latency_ms
    share = report.share_of_ceiling(entry)
    stages = "/".join(f"{100 * ms / spread.mean:.0f}" for ms in entry.stages_ms.values())
    return (
        entry.contestant,
        entry.library,
        f"{spread.median:.1f}",
        f"{spread.q25:.1f}..{spread.q75:.1f}",
        _ratio(result, entry.contestant, _baseline(result)),
        f"{entry.fps:.3g}",
        stages,
        f"{100 * entry.overhead:.1f}",
        "" if entry.gflops is None else f"{entry.gflops:.0f}",
        "" if share is None else f"{100 * share:.0f}",
        "" if entry.peak_memory_mib is None else f"{entry.peak_memory_mib:.0f}",
    )


def _ratio(result: Result, of: str, to: str) -> str:
    found = ratio(result, of, to)
    return "" if found is None else f"{found.median:.2f}"
