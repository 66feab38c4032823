"""The suite of a benchmark: its cases, candidates and durations, from options or TOML; its run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

from ikc_deploy.benchmarks.candidates import Candidate, choose, our_bundle
from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.interleaved import CaseResult, TimingBudget, run_interleaved
from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.benchmarks.peak_memory import peak_memory_mib
from ikc_deploy.benchmarks.peak_throughput import measure_peak_throughput
from ikc_deploy.benchmarks.quality import CandidateQuality, measure_quality
from ikc_deploy.benchmarks.report import BenchmarkReport
from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.errors import ExportError, InputError
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.loops import IKC
from ikc_deploy.option_fields import Option
from ikc_deploy.parsing import read_toml
from ikc_deploy.runtime.backends.backend_names import BACKENDS
from ikc_deploy.runtime.options import MAX_THREADS, UpscalerOptions
from ikc_deploy.text import printable, shown
from ikc_deploy.typed_values import PathText, SettingError, check_names, read_settings
from ikc_deploy.weights import find_weights

Size = tuple[int, int]
"""Height and width of an LR frame."""


class SuiteObserver(Protocol):
    """An observer of a benchmark's progress."""

    def phase(self, what: str, done: int = 0, total: int = 0) -> None:
        """Report the current activity; `total` is 0 while unknown."""

    def finished(self, result: CaseResult) -> None:
        """Report the result of a case."""


@dataclass(frozen=True)
class Suite:
    """The suite of a benchmark: each subject in each case, with interleaved candidates.

    Raises:
        InputError: A value is out of range, or a candidate or case does not exist.
    """

    subjects: tuple[Subject, ...]
    """Networks under test."""
    sizes: tuple[Size, ...]
    """Sizes of LR frames."""
    iters: Annotated[tuple[int, ...], Option("Number of corrections after the predictor.")] = (
        IKC.iters,
    )
    batches: Annotated[tuple[int, ...], Option("Frames per call.", flags=("--batch",))] = (1,)
    threads: Annotated[
        int, Option("Number of CPU cores to use; 0 for all.", maximum=MAX_THREADS)
    ] = UpscalerOptions.threads
    compare: Annotated[
        str | None,
        Option(
            "Candidates to measure, interleaved: all, or a comma-separated list of names.",
            default="our graphs with --backend and the chosen precision",
        ),
    ] = None
    backend: Annotated[
        str,
        Option(f"Runtime of our graphs: auto, or one of {', '.join(BACKENDS)}."),
    ] = UpscalerOptions.backend
    precision: Annotated[
        Precision,
        Option(
            "Precision to measure without candidates.",
            switches=(
                ("fp32", "Measure our graphs in float32."),
                ("fp16", "Measure our graphs with float16 convolutions."),
                ("int8", "Measure our graphs with 8-bit convolutions."),
            ),
        ),
    ] = "fp32"
    timing_budget: TimingBudget = field(default_factory=TimingBudget)
    """Duration of the measurement of each case."""
    memory: Annotated[bool, Option("Measure peak memory, each candidate in its own process.")] = (
        True
    )
    quality: Annotated[
        Path | None,
        Option("Folder of HR images on which to measure the PSNR-Y of our graphs (Gaussian8)."),
    ] = None

    def __post_init__(self) -> None:
        """Require at least one value of each list, and valid cases and candidates."""
        for name in ("subjects", "sizes", "iters", "batches"):
            if not getattr(self, name):
                raise InputError(f"nothing to measure without {name}; give at least one")
        # Both raise for unknown names and values, before anything is measured.
        self.cases()
        self.candidates()

    def cases(self) -> list[BenchmarkCase]:
        """Return every combination of size, batch and number of corrections."""
        return [
            BenchmarkCase(*size, count, batch, self.threads)
            for size in self.sizes
            for batch in self.batches
            for count in self.iters
        ]

    def candidates(self) -> list[Candidate]:
        """Return the candidates to measure."""
        return choose(self.compare or f"{self.backend}-{self.precision}")

    def check(self) -> None:
        """Refuse weights and images that are missing, which a measurement would notice late.

        Raises:
            CheckpointError: The weights are unknown.
            InputError: `quality` has no images.
        """
        for subject in self.subjects:
            if subject.weights is not None:
                find_weights(subject.weights)
        if self.quality is not None:
            list_images(self.quality)

    def command(self) -> str:
        """Return the command line that repeats this benchmark."""
        words = ["ikc-bench"]
        for subject in self.subjects:
            kind = "--weights" if subject.weights else "--bundle"
            words += [kind, subject.weights or Path(str(subject.bundle)).name]
        words += [word for h, w in self.sizes for word in ("--res", f"{w}x{h}")]
        words += [word for count in self.iters for word in ("--iters", str(count))]
        words += [word for count in self.batches for word in ("--batch", str(count))]
        words += ["--threads", str(self.threads)] if self.threads else []
        words += ["--compare", self.compare] if self.compare else [f"--{self.precision}"]
        words += ["--backend", self.backend] if self.backend != "auto" else []
        return " ".join(words)


def run_suite(suite: Suite, watch: SuiteObserver) -> Iterator[BenchmarkReport]:
    """Run a benchmark; yield the report after every case, so an interrupted run keeps its results.

    Args:
        suite: Suite to run.
        watch: Observer of the progress.

    Raises:
        IkcError: As `Suite.check`, before anything is measured, or a candidate fails.
    """
    suite.check()
    # Before any measurement, so that the recorded load is that of other programs.
    machine = describe_machine()
    watch.phase("the machine's peak throughput")
    report = BenchmarkReport(suite.command(), machine, measure_peak_throughput(suite.threads))
    for subject in suite.subjects:
        for case in suite.cases():
            result = _measure(suite, subject, case, watch)
            report = report.with_result(result)
            watch.finished(result)
            yield report
    if suite.quality is not None:
        for quality in _qualities(suite, suite.quality, watch):
            report = replace(report, qualities=(*report.qualities, quality))
        yield report


def _measure(
    suite: Suite, subject: Subject, case: BenchmarkCase, watch: SuiteObserver
) -> CaseResult:
    result = run_interleaved(suite.candidates(), subject, case, suite.timing_budget, watch.phase)
    if not suite.memory:
        return result
    measurements = []
    for measurement in result.measurements:
        watch.phase(f"memory of {measurement.candidate}")
        peak = peak_memory_mib(measurement.candidate, subject, case)
        measurements.append(replace(measurement, peak_memory_mib=peak))
    return replace(result, measurements=tuple(measurements))


def _qualities(suite: Suite, folder: Path, watch: SuiteObserver) -> Iterator[CandidateQuality]:
    for subject in suite.subjects:
        for candidate in suite.candidates():
            # Unrelated images are not a clip that can be tracked.
            if candidate.ours is None or candidate.ours.arguments.get("estimate") == "track":
                continue
            for count in suite.iters:
                report = partial(watch.phase, f"quality of {candidate.name}, iters {count}")
                try:
                    bundle = our_bundle(subject, candidate.ours.precision)
                except ExportError:
                    # The timing has reported why it does not run.
                    continue
                quality = measure_quality(
                    bundle, candidate.ours, folder, count, suite.threads, report
                )
                yield CandidateQuality(str(subject), candidate.name, count, *quality)


@dataclass(frozen=True)
class _SuiteTable:
    """A table of a TOML file of suites, except for the timing budget; named like the options."""

    weights: tuple[PathText, ...] = ()
    res: tuple[str, ...] = ()
    iters: tuple[int, ...] = Suite.iters
    batch: tuple[int, ...] = Suite.batches
    threads: int = Suite.threads
    compare: str | None = Suite.compare
    memory: bool = Suite.memory
    quality: PathText | None = None


def read_suites(path: Path) -> dict[str, Suite]:
    """Read the suites of a TOML file with a table `[NAME]` for each, in order.

    Keys are named like the options of `ikc-bench`: weights, res, iters, batch, threads, compare,
    warmup, min_time, runs, memory, quality (a folder, relative to the file).

    Raises:
        InputError: The file is missing or damaged, or a table is invalid; the message names it.
    """
    try:
        tables = read_toml(path, "suite file")
    except SettingError as error:
        raise InputError(str(error)) from error
    suites = {}
    for name, table in tables.items():
        # Results are written to files of these names.
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise InputError(
                f"[{printable(name)}] of '{path}' is not the name of a file: use letters, digits, "
                "- and _"
            )
        try:
            suites[name] = _suite(table, path.parent)
        except (InputError, SettingError) as error:
            raise InputError(f"[{name}] of '{path}': {error}") from error
    if not suites:
        raise InputError(f"'{path}' has nothing to measure; add a table [NAME]")
    return suites


def _suite(values: object, folder: Path) -> Suite:
    if not isinstance(values, dict):
        raise SettingError(f"must be a table, got {shown(values)}")
    timed = {item.name for item in fields(TimingBudget)} & set(values)
    known = {item.name for kind in (_SuiteTable, TimingBudget) for item in fields(kind)}
    check_names(values, known)
    others = {name: value for name, value in values.items() if name not in timed}
    table = read_settings(_SuiteTable, others)
    return Suite(
        subjects=tuple(map(Subject, table.weights)),
        sizes=tuple(map(parse_size, table.res)),
        iters=table.iters,
        batches=table.batch,
        threads=table.threads,
        compare=table.compare,
        memory=table.memory,
        quality=None if table.quality is None else folder / table.quality,
        timing_budget=read_settings(TimingBudget, {name: values[name] for name in timed}),
    )


def parse_size(text: str) -> Size:
    """Parse "SIDE" or "WIDTHxHEIGHT" into (height, width) in pixels.

    Raises:
        InputError: `text` has another form.
    """
    match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text.strip().lower())
    if match is None:
        raise InputError(
            f"invalid --res '{text}': expected SIDE or WIDTHxHEIGHT in pixels, for example 256 or "
            "320x180"
        )
    width = int(match[1])
    return int(match[2] or width), width
