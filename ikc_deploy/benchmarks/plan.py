"""What a bench measures, and carrying it out: cases, contestants, effort; from options or TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ikc_deploy.benchmarks.case import Case, Subject
from ikc_deploy.benchmarks.ceiling import measure_ceilings
from ikc_deploy.benchmarks.contestants import Contestant, choose, our_bundle
from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.benchmarks.memory import peak_memory_mib
from ikc_deploy.benchmarks.quality import Quality, measure_quality
from ikc_deploy.benchmarks.race import Effort, Result, race
from ikc_deploy.benchmarks.report import Report
from ikc_deploy.bundle import Precision
from ikc_deploy.errors import ExportError, InputError
from ikc_deploy.runtime.upscaler import DEFAULT_ITERS

Size = tuple[int, int]
"""Height and width of an LR frame."""


class Watch(Protocol):
    """Is told what a bench is doing."""

    def phase(self, what: str, done: int = 0, total: int = 0) -> None:
        """`total` is 0 while unknown."""

    def finished(self, result: Result) -> None:
        """A case is measured."""


@dataclass(frozen=True)
class Plan:
    """Everything that a bench measures: each subject in each case, all contestants taking turns."""

    subjects: tuple[Subject, ...]
    sizes: tuple[Size, ...]
    iters: tuple[int, ...] = (DEFAULT_ITERS,)
    batches: tuple[int, ...] = (1,)
    threads: int = 0
    compare: str | None = None
    """Names of contestants, or "all"; None for `backend` and `precision` alone."""
    backend: str = "auto"
    precision: Precision = "fp32"
    effort: Effort = field(default_factory=Effort)
    memory: bool = True
    """Whether to measure peak memory too, each contestant in a process of its own."""
    quality: Path | None = None
    """A folder of HR images to measure the PSNR of ours on."""

    def __post_init__(self) -> None:
        for name in ("subjects", "sizes", "iters", "batches"):
            if not getattr(self, name):
                raise InputError(f"a bench without {name} measures nothing")
        # Both raise for what does not exist, before anything is measured.
        self.cases()
        self.contestants()

    def cases(self) -> list[Case]:
        """Every combination of size, batch and count of corrections."""
        return [
            Case(*size, count, batch, self.threads)
            for size in self.sizes
            for batch in self.batches
            for count in self.iters
        ]

    def contestants(self) -> list[Contestant]:
        """Who takes part."""
        return choose(self.compare or f"{self.backend}-{self.precision}")

    def command(self) -> str:
        """The command line that measures this again."""
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


def carry_out(plan: Plan, watch: Watch) -> Iterator[Report]:
    """The report after every case, so that an interrupted bench keeps what it has."""
    # Before any work of our own, for the load that was there already.
    machine = describe_machine()
    watch.phase("the machine's ceiling")
    report = Report(plan.command(), machine, measure_ceilings(plan.threads))
    for subject in plan.subjects:
        for case in plan.cases():
            result = _measure(plan, subject, case, watch)
            report = report.with_result(result)
            watch.finished(result)
            yield report
    if plan.quality is not None:
        for quality in _qualities(plan, plan.quality, watch):
            report = replace(report, qualities=(*report.qualities, quality))
        yield report


def _measure(plan: Plan, subject: Subject, case: Case, watch: Watch) -> Result:
    result = race(plan.contestants(), subject, case, plan.effort, watch.phase)
    if not plan.memory:
        return result
    entries = []
    for entry in result.entries:
        watch.phase(f"memory of {entry.contestant}")
        peak = peak_memory_mib(entry.contestant, subject, case)
        entries.append(replace(entry, peak_memory_mib=peak))
    return replace(result, entries=tuple(entries))


def _qualities(plan: Plan, folder: Path, watch: Watch) -> Iterator[Quality]:
    for subject in plan.subjects:
        for contestant in plan.contestants():
            # Unrelated images are no clip to track.
            if contestant.ours is None or contestant.ours.arguments.get("estimate") == "track":
                continue
            for count in plan.iters:
                report = partial(watch.phase, f"quality of {contestant.name}, iters {count}")
                try:
                    bundle = our_bundle(subject, contestant.ours.precision)
                except ExportError:
                    # The race has said why it does not run.
                    continue
                quality = measure_quality(
                    bundle, contestant.ours, folder, count, plan.threads, report
                )
                yield Quality(str(subject), contestant.name, count, *quality)


def read_suite(path: Path) -> dict[str, Plan]:
    """The plans of a TOML file with a table `[NAME]` for each, in order.

    Keys are those of `ikc-bench`'s options: weights, res, iters, batch, threads, compare, warmup,
    min_time, runs, memory, quality (a folder, relative to the file). Raises `InputError` naming
    the table and the key.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"there is no suite at '{path}'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is not TOML: {error}") from error
    plans = {}
    for name, table in tables.items():
        try:
            plans[name] = _plan(table, path.parent)
        except (InputError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"[{name}] of '{path}': {error}") from error
    if not plans:
        raise InputError(f"'{path}' has no table, so there is nothing to measure")
    return plans


_LISTS = {"res", "iters", "batch", "weights"}
_SINGLE = {"threads", "compare", "memory", "quality"}
_EFFORT = {item.name for item in fields(Effort)}


def _plan(table: dict[str, Any], folder: Path) -> Plan:
    unknown = set(table) - _LISTS - _SINGLE - _EFFORT
    if unknown:
        known = ", ".join(sorted(_LISTS | _SINGLE | _EFFORT))
        raise InputError(f"there is no setting '{min(unknown)}'; it takes {known}")
    lists = {key: table[key] for key in _LISTS & set(table)}
    for key, value in lists.items():
        if not isinstance(value, list):
            raise InputError(f"{key} must be a list, got {value!r}")
    values = {key: table[key] for key in _SINGLE & set(table)}
    if "quality" in values:
        values["quality"] = folder / values["quality"]
    return Plan(
        subjects=tuple(Subject(weights) for weights in lists.get("weights", [])),
        sizes=tuple(parse_size(str(size)) for size in lists.get("res", [])),
        iters=tuple(lists.get("iters", [DEFAULT_ITERS])),
        batches=tuple(lists.get("batch", [1])),
        effort=Effort(**{key: table[key] for key in _EFFORT & set(table)}),
        **values,
    )


def parse_size(text: str) -> Size:
    """(height, width) of "SIDE" or "WIDTHxHEIGHT"; raises `InputError` for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text.strip().lower())
    if match is None:
        raise InputError(
            f"--res takes SIDE or WIDTHxHEIGHT in pixels, as 256 or 320x180, got '{text}'"
        )
    width = int(match[1])
    return int(match[2] or width), width
