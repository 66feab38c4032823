"""ikc-bench: measure the cost of a frame on this machine, and compare implementations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

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
from ikc_deploy.bundle.manifest import DEFAULT_ITERS, Bundle, Precision
from ikc_deploy.cli._bundle_report import print_fact
from ikc_deploy.cli._common import HELP, OUTPUT_FILE, err_console, out_console, reports_errors
from ikc_deploy.cli._number_types import FiniteRange
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.render.terminal import print_table
from ikc_deploy.files import write_atomically
from ikc_deploy.runtime.backends import BACKENDS
from ikc_deploy.weights import DEFAULT_WEIGHTS

_STDOUT = Path("-")
_FILE = click.Path(path_type=Path)


@click.command(context_settings=HELP)
@click.option(
    "--compare", help="Candidates to measure in turn: all, or a comma-separated list of names."
)
@click.option(
    "--res",
    "sizes",
    multiple=True,
    default=("256",),
    show_default=True,
    help="Size of the LR frame in pixels: SIDE or WIDTHxHEIGHT (repeatable).",
)
@click.option(
    "--iters",
    multiple=True,
    type=int,
    default=(DEFAULT_ITERS,),
    show_default=True,
    help="Number of corrections after the predictor (repeatable).",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    default=(1,),
    show_default=True,
    help="Frames per call (repeatable).",
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
    type=_FILE,
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
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    help=f"Runtime of our graphs: auto, or one of {', '.join(BACKENDS)}.",
)
@click.option(
    "--threads", type=int, default=0, show_default=True, help="Number of CPU cores; 0 for all."
)
@click.option(
    "--warmup",
    type=FiniteRange(min=0),
    default=TimingBudget.warmup,
    show_default=True,
    help="Seconds of warm-up calls for each candidate; at least one call.",
)
@click.option(
    "--min-time",
    type=FiniteRange(min=0),
    default=TimingBudget.min_time,
    show_default=True,
    help="Seconds of timed calls for each candidate; at least 3 and at most 200 rounds.",
)
@click.option("--runs", type=int, help="Number of timed rounds, instead of --min-time.")
@click.option(
    "--memory/--no-memory",
    default=True,
    help="Measure peak memory, each candidate in its own process.",
)
@click.option(
    "--quality",
    type=_FILE,
    help="Folder of HR images on which to measure the PSNR-Y of our graphs (Gaussian8).",
)
@click.option(
    "--json", "json_path", type=OUTPUT_FILE, help="JSON file for all results; - for stdout."
)
@click.option(
    "--csv", "csv_path", type=OUTPUT_FILE, help="CSV file with a line for each case and candidate."
)
@click.option("--html", "html_path", type=OUTPUT_FILE, help="HTML file with tables and charts.")
@click.option(
    "--suite", type=_FILE, help="TOML file of measurements to run; results are written to --out."
)
@click.option("--out", type=_FILE, help="Folder for the results of a --suite.")
@click.option(
    "--diff",
    nargs=2,
    type=_FILE,
    metavar="OLD NEW",
    help="Measure nothing; show the changes beyond noise between two JSON files.",
)
@reports_errors
def main(
    sizes: tuple[str, ...],
    iters: tuple[int, ...],
    batches: tuple[int, ...],
    weights: tuple[str, ...],
    folders: tuple[Path, ...],
    precision: Precision | None,
    json_path: Path | None,
    csv_path: Path | None,
    html_path: Path | None,
    suite: Path | None,
    out: Path | None,
    diff: tuple[Path, Path] | None,
    warmup: float,
    min_time: float,
    runs: int | None,
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
            err_console.print(f"{name}: {plan.command()}", soft_wrap=True, markup=False)
            _measure(plan, {"--json": out / f"{name}.json", "--html": out / f"{name}.html"})
        return
    plan = Suite(
        subjects=_subjects(weights, folders, precision),
        sizes=tuple(map(parse_size, sizes)),
        iters=iters,
        batches=batches,
        precision=precision or _precision_of(folders),
        timing_budget=TimingBudget(warmup, min_time, runs),
        **options,
    )
    report = _measure(plan, outputs)
    if json_path == _STDOUT:
        click.echo(report.to_json())
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
    with _watching() as watch:
        for report in run_suite(plan, watch):
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

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None)

    def phase(self, what: str, done: int = 0, total: int = 0) -> None:
        self._bars.update(self._task, description=what, completed=done, total=total or None)

    def finished(self, result: CaseResult) -> None:
        for measurement in result.measurements:
            line = f"{measurement.candidate} {measurement.latency_ms.median:.1f} ms"
            err_console.print(
                f"{result.subject}, {result.case}: {line}, {len(measurement.ms)} runs",
                soft_wrap=True,
            )


@contextmanager
def _watching() -> Iterator[_Watch]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Off a terminal even a transient bar leaves an empty line behind.
    quiet = not err_console.is_terminal
    with Progress(*columns, console=err_console, transient=True, disable=quiet) as bars:
        yield _Watch(bars)


def _print(report: BenchmarkReport) -> None:
    for line in machine_lines(report):
        print_fact(line)
    for subject in dict.fromkeys(result.subject for result in report.results):
        print_table(out_console, latency_table(report, subject))
    for result in report.results:
        if len(result.measurements) > 1:
            print_table(out_console, ratio_table(result))
    if report.qualities:
        print_table(out_console, quality_table(report))
    for line in skipped_lines(report):
        print_fact(f"did not run: {line}")


def _show_changes(old: BenchmarkReport, new: BenchmarkReport) -> None:
    if not same_machine(old, new):
        err_console.print("the reports are from different machines: their times are not comparable")
    found = compare_reports(old, new)
    if not found:
        raise InputError(
            "the two reports have no case and candidate in common; give reports of the same suite"
        )
    print_table(out_console, change_table(found))


if __name__ == "__main__":
    main()
