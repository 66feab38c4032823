"""ikc-bench: measure the cost of a frame on this machine, and compare implementations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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
from ikc_deploy.cli._bundle_options import BUNDLE, WEIGHTS
from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import given_values, option_group
from ikc_deploy.cli._output_files import STDOUT, check_output_files
from ikc_deploy.cli._ui import ProgressBars, note, print_table, progress_bars, say
from ikc_deploy.cli._value_types import PATH
from ikc_deploy.errors import InputError
from ikc_deploy.files import write_atomically
from ikc_deploy.option_fields import Option
from ikc_deploy.reporting.tables import Table
from ikc_deploy.weights import DEFAULT_WEIGHTS


@dataclass(frozen=True)
class SubjectOptions:
    """The networks and the frames that are measured.

    Raises:
        InputError: Weights and bundles are given.
    """

    sizes: Annotated[
        tuple[str, ...],
        Option("Size of the LR frame in pixels: SIDE or WIDTHxHEIGHT.", flags=("--res",)),
    ] = ("256",)
    weights: Annotated[tuple[str, ...], WEIGHTS] = ()
    folders: Annotated[tuple[Path, ...], BUNDLE] = ()

    def __post_init__(self) -> None:
        """Refuse weights and bundles together."""
        if self.weights and self.folders:
            raise InputError("give --weights or --bundle, not both")

    def subjects(self) -> tuple[Subject, ...]:
        """Return the networks."""
        if self.folders:
            return tuple(Subject(bundle=str(folder)) for folder in self.folders)
        return tuple(Subject(name) for name in self.weights or (DEFAULT_WEIGHTS,))

    def precision(self, wanted: Precision | None) -> Precision:
        """Return the precision of the bundles, or the wanted one of weights.

        Raises `InputError` if a bundle has another precision than `wanted`, or the precision is not
        the same for all, as they would not be one candidate.
        """
        found = {folder: Bundle.open(folder).manifest.precision for folder in self.folders}
        for folder, precision in found.items():
            if wanted not in (None, precision):
                raise InputError(
                    f"'{folder}' is an {precision} bundle; leave out --{wanted}, or export it "
                    "again in that precision"
                )
        kinds = sorted(set(found.values())) or [wanted or Suite.precision]
        if len(kinds) > 1:
            raise InputError(
                f"the bundles have precisions {', '.join(kinds)}; measure them one by one"
            )
        return kinds[0]


@dataclass(frozen=True)
class BenchOutputs:
    """Files for the results.

    Raises:
        InputError: Two files are the same, or a file other than JSON is standard output.
        OutputError: A file cannot be written.
    """

    json: Annotated[Path | None, Option("JSON file for all results; - for stdout.")] = None
    csv: Annotated[Path | None, Option("CSV file with a line for each case and candidate.")] = None
    html: Annotated[Path | None, Option("HTML file with tables and charts.")] = None

    def __post_init__(self) -> None:
        """Refuse now what would fail after a long measurement."""
        check_output_files(self.files, printed=("--json",))

    @property
    def files(self) -> dict[str, Path | None]:
        """Files by option."""
        return {"--json": self.json, "--csv": self.csv, "--html": self.html}


@dataclass(frozen=True)
class OtherWork:
    """What is done instead of measuring one set of cases.

    Raises:
        InputError: A suite is given without the folder of its results, or the other way round.
    """

    suite: Annotated[
        Path | None,
        Option("TOML file of measurements to run; results are written to --out."),
    ] = None
    out: Annotated[Path | None, Option("Folder for the results of a --suite.")] = None
    diff: Annotated[
        tuple[Path, Path] | None,
        Option(
            "Measure nothing; show the changes beyond noise between two JSON files.",
            metavar="OLD NEW",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Require both or none of the options of a suite."""
        if (self.suite is None) != (self.out is None):
            raise InputError(
                "--suite gives the measurements and --out the folder of the results; give both"
            )


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@option_group(SubjectOptions, "chosen")
@option_group(Suite, None, without=("warmup", "min_time", "runs"))
@option_group(TimingBudget, "timing_budget")
@option_group(BenchOutputs, "outputs")
@option_group(OtherWork, "other", types={"diff": (PATH, PATH)})
def main(
    chosen: SubjectOptions,
    timing_budget: TimingBudget,
    outputs: BenchOutputs,
    other: OtherWork,
    **options: Any,
) -> None:
    """Measure latency, stages, peak memory and quality of blind super-resolution.

    Every combination of --res, --batch and --iters is measured; with --compare all candidates
    take turns within each. Frames are random, with the statistics of photographs.
    """
    if other.diff is not None:
        _show_changes(*map(BenchmarkReport.read, other.diff))
        return
    if other.suite is not None and other.out is not None:
        _run_suites(read_suites(other.suite), other.out)
        return
    subjects = chosen.subjects()
    options["precision"] = chosen.precision(given_values(Suite).get("precision"))
    plan = Suite(
        subjects=subjects,
        sizes=tuple(map(parse_size, chosen.sizes)),
        timing_budget=timing_budget,
        **options,
    )
    report = _measure(plan, outputs.files)
    if outputs.json == STDOUT:
        say(report.to_json())
    else:
        _print(report)


def _run_suites(plans: Mapping[str, Suite], folder: Path) -> None:
    files = {
        name: {f"--{kind}": folder / f"{name}.{kind}" for kind in ("json", "html")}
        for name in plans
    }
    for name, plan in plans.items():
        check_output_files(files[name], printed=())
        plan.check()
    for name, plan in plans.items():
        note(f"{name}: {plan.command()}")
        _measure(plan, files[name])


def _measure(plan: Suite, outputs: Mapping[str, Path | None]) -> BenchmarkReport:
    report = BenchmarkReport(plan.command(), {})
    with progress_bars() as bars:
        for report in run_suite(plan, _Watch(bars)):
            # After every case, so that an interrupted run keeps its results.
            _write(report, {"--json": outputs.get("--json"), "--csv": outputs.get("--csv")})
    _write(report, outputs)
    return report


def _write(report: BenchmarkReport, outputs: Mapping[str, Path | None]) -> None:
    for option, path in outputs.items():
        if path is None or path == STDOUT:
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
