"""ikc-bench: measure the cost of a frame on this machine, and compare implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ikc_deploy.benchmarks.case import Subject
from ikc_deploy.benchmarks.compare import compare_reports, same_machine
from ikc_deploy.benchmarks.interleaved import CaseResult, TimingBudget
from ikc_deploy.benchmarks.render.report_tables import (
    change_table,
    latency_table,
    machine_lines,
    quality_table,
    ratio_table,
    skipped_lines,
)
from ikc_deploy.benchmarks.report import BenchmarkReport
from ikc_deploy.benchmarks.suite import Suite, parse_size, read_suites, run_suite
from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import ProgressBars, note, print_table, progress_bars, say
from ikc_deploy.cli._value_types import OUTPUT_FILE, PATH
from ikc_deploy.errors import InputError
from ikc_deploy.files import write_atomically
from ikc_deploy.reporting.tables import Table
from ikc_deploy.weights import DEFAULT_WEIGHTS

_STDOUT = Path("-")


@click.command(context_settings=HELP)
@reports_errors
@click.option(
    "--res",
    "sizes",
    multiple=True,
    default=("256",),
    show_default=True,
    help="Size of the LR frame in pixels: SIDE or WIDTHxHEIGHT (repeatable).",
)
@click.option(
    "--weights",
    multiple=True,
    help="Shipped weights, a checkpoint file, or random:ARCHITECTURE (repeatable).  "
    f"[default: {DEFAULT_WEIGHTS}]",
)
@click.option(
    "--bundle",
    "folders",
    multiple=True,
    type=PATH,
    help="Folder written by ikc-export, instead of --weights (repeatable).",
)
@click.option(
    "--fp16", "precision", flag_value="fp16", help="Measure our graphs with float16 convolutions."
)
@click.option(
    "--fp32", "precision", flag_value="fp32", help="Measure our graphs in float32.  [default]"
)
@click.option(
    "--int8", "precision", flag_value="int8", help="Measure our graphs with 8-bit convolutions."
)
@option_group(Suite, None, without=("warmup", "min_time", "runs"))
@option_group(TimingBudget, "timing_budget")
@click.option(
    "--json", "json_path", type=OUTPUT_FILE, help="JSON file for all results; - for stdout."
)
@click.option(
    "--csv", "csv_path", type=OUTPUT_FILE, help="CSV file with a line for each case and candidate."
)
@click.option("--html", "html_path", type=OUTPUT_FILE, help="HTML file with tables and charts.")
@click.option(
    "--suite", type=PATH, help="TOML file of measurements to run; results are written to --out."
)
@click.option("--out", type=PATH, help="Folder for the results of a --suite.")
@click.option(
    "--diff",
    nargs=2,
    type=PATH,
    metavar="OLD NEW",
    help="Measure nothing; show the changes beyond noise between two JSON files.",
)
def main(
    sizes: tuple[str, ...],
    weights: tuple[str, ...],
    folders: tuple[Path, ...],
    precision: Precision | None,
    json_path: Path | None,
    csv_path: Path | None,
    html_path: Path | None,
    suite: Path | None,
    out: Path | None,
    diff: tuple[Path, Path] | None,
    timing_budget: TimingBudget,
    **options: Any,
) -> None:
    """Measure latency, stages, peak memory and quality of blind super-resolution.

    Every combination of --res, --batch and --iters is measured; with --compare all candidates
    take turns within each. Frames are random, with the statistics of photographs.
    """
    outputs = {"--json": json_path, "--csv": csv_path, "--html": html_path}
    _check_outputs(outputs)
    if diff is not None:
        _show_changes(BenchmarkReport.read(diff[0]), BenchmarkReport.read(diff[1]))
        return
    if (suite is None) != (out is None):
        raise InputError(
            "--suite gives the measurements and --out the folder of the results; give both"
        )
    if suite is not None and out is not None:
        for name, plan in read_suites(suite).items():
            note(f"{name}: {plan.command()}")
            _measure(plan, {"--json": out / f"{name}.json", "--html": out / f"{name}.html"})
        return
    plan = Suite(
        subjects=_subjects(weights, folders, precision),
        sizes=tuple(map(parse_size, sizes)),
        precision=precision or _precision_of(folders),
        timing_budget=timing_budget,
        **options,
    )
    report = _measure(plan, outputs)
    if json_path == _STDOUT:
        say(report.to_json())
    else:
        _print(report)


def _check_outputs(outputs: dict[str, Path | None]) -> None:
    for option, path in outputs.items():
        if path is not None and path.is_dir():
            raise InputError(f"{option} '{path}' is a folder; give a file")


def _subjects(
    weights: tuple[str, ...], folders: tuple[Path, ...], precision: Precision | None
) -> tuple[Subject, ...]:
    if weights and folders:
        raise InputError("give --weights or --bundle, not both")
    for folder in folders:
        found = Bundle.open(folder).manifest.precision
        if precision is not None and precision != found:
            raise InputError(
                f"'{folder}' is an {found} bundle; leave out --{precision}, or export it again in "
                "that precision"
            )
    if folders:
        return tuple(Subject(bundle=str(folder)) for folder in folders)
    return tuple(Subject(name) for name in weights or (DEFAULT_WEIGHTS,))


def _precision_of(folders: tuple[Path, ...]) -> Precision:
    """Return the precision of the bundles, float32 for weights.

    Raises `InputError` if it is not the same for all, as they would not be one candidate.
    """
    found = {Bundle.open(folder).manifest.precision for folder in folders} or {"fp32"}
    if len(found) > 1:
        raise InputError(
            f"the bundles have precisions {', '.join(sorted(found))}; measure them one by one"
        )
    (precision,) = found
    return precision


def _measure(plan: Suite, outputs: dict[str, Path | None]) -> BenchmarkReport:
    report = BenchmarkReport(plan.command(), {})
    with progress_bars() as bars:
        for report in run_suite(plan, _Watch(bars)):
            # After every case, so that an interrupted run keeps its results.
            _write(report, {"--json": outputs.get("--json"), "--csv": outputs.get("--csv")})
    _write(report, outputs)
    return report


def _write(report: BenchmarkReport, outputs: dict[str, Path | None]) -> None:
    for option, path in outputs.items():
        if path is None or path == _STDOUT:
            continue
        write_atomically(path, _render(option, report).encode())


def _render(option: str, report: BenchmarkReport) -> str:
    if option == "--html":
        # matplotlib is slow to import, and only the HTML page needs it.
        from ikc_deploy.benchmarks.render.page import to_html

        return to_html(report)
    return report.to_csv() if option == "--csv" else report.to_json()


class _Watch:
    """Progress of a suite: a bar with the current phase, and a line for every case."""

    def __init__(self, bars: ProgressBars) -> None:
        self._bars = bars

    def phase(self, what: str, done: int = 0, total: int = 0) -> None:
        self._bars.show("measuring", done, total or None, what)

    def finished(self, result: CaseResult) -> None:
        for measurement in result.measurements:
            line = f"{measurement.candidate} {measurement.latency_ms.median:.1f} ms"
            note(f"{result.subject}, {result.case}: {line}, {len(measurement.ms)} runs")


def _print(report: BenchmarkReport) -> None:
    for line in machine_lines(report):
        say(line)
    for subject in dict.fromkeys(result.subject for result in report.results):
        _print_table(latency_table(report, subject))
    for result in report.results:
        if len(result.measurements) > 1:
            _print_table(ratio_table(result))
    if report.qualities:
        _print_table(quality_table(report))
    for line in skipped_lines(report):
        say(f"did not run: {line}")


def _print_table(table: Table) -> None:
    print_table(table.title, table.header, table.rows)


def _show_changes(old: BenchmarkReport, new: BenchmarkReport) -> None:
    if not same_machine(old, new):
        note("the reports are from different machines: their times are not comparable")
    found = compare_reports(old, new)
    if not found:
        raise InputError(
            "the two reports have no case and candidate in common; give reports of the same suite"
        )
    _print_table(change_table(found))


if __name__ == "__main__":
    main()
