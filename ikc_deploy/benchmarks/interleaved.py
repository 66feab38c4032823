"""Interleaved timing: candidates take turns, so other load on the machine slows all of them.

In each round every candidate runs once, and each round begins with the next candidate, so that the
order does not favour any. Ratios are computed within rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Final

from ikc_deploy.benchmarks.candidates import Candidate
from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.runners import CandidateRunner, Timing
from ikc_deploy.benchmarks.statistics import TimingSummary, paired_ratio
from ikc_deploy.errors import BackendError, IkcError, InputError
from ikc_deploy.option_fields import Option, check_options
from ikc_deploy.typed_values import PathText

MIN_ROUNDS: Final = 3
MAX_ROUNDS: Final = 200
_MAX_SECONDS: Final = 3600


@dataclass(frozen=True)
class TimingBudget:
    """The duration of a measurement.

    Raises:
        InputError: A value is out of range.
    """

    warmup: Annotated[
        float,
        Option(
            "Seconds of untimed calls for each candidate; at least one call.",
            minimum=0,
            maximum=_MAX_SECONDS,
        ),
    ] = 1.0
    min_time: Annotated[
        float,
        Option(
            f"Seconds of timed calls for each candidate; at least {MIN_ROUNDS} rounds and at most "
            f"{MAX_ROUNDS}.",
            minimum=0,
            maximum=_MAX_SECONDS,
        ),
    ] = 10.0
    runs: Annotated[int | None, Option("Number of timed rounds, instead of --min-time.")] = None

    def __post_init__(self) -> None:
        """Require durations in their ranges, and at least one run if `runs` is given."""
        check_options(self)
        if self.runs is not None and self.runs < 1:
            raise InputError(f"runs must be at least 1, got {self.runs}")

    def rounds(self, seconds: float) -> int:
        """Return the number of rounds, given the seconds of the fastest candidate's call."""
        if self.runs is not None:
            return self.runs
        return min(MAX_ROUNDS, max(MIN_ROUNDS, round(self.min_time / seconds)))


@dataclass(frozen=True)
class Measurement:
    """The times of one candidate's calls in one case."""

    candidate: str
    """Name of the candidate."""
    about: PathText
    """Description for people."""
    ours: bool
    """Whether it is our `Upscaler`."""
    precision: str
    """Precision of the convolutions."""
    library: str
    """Library that computes them."""
    ms: tuple[float, ...]
    """Milliseconds of each timed call, by round."""
    latency_ms: TimingSummary
    """Summary of `ms`."""
    fps: float
    """Frames a second: frames of the batch over the median time of a call."""
    stages_ms: dict[str, float]
    """Mean milliseconds of each network, summed over the loop."""
    overhead: float
    """Share of the mean time outside the networks: copies, conversions, bookkeeping."""
    macs: int | None
    """Number of multiply-accumulates of one call; None if they cannot be counted."""
    gflops: float | None
    """Throughput: 2 * macs over the median time, in 10^9 a second; None without macs."""
    peak_memory_mib: float | None = None
    """Peak resident set, in MiB, of a process that does only this (see `peak_memory`)."""


@dataclass(frozen=True)
class Ratio:
    """The ratio of one candidate's time to that of another, over the rounds."""

    of: str
    """Name of the candidate in the numerator."""
    to: str
    """Name of the candidate in the denominator."""
    ratio: TimingSummary
    """Summary of the ratios of the rounds."""


@dataclass(frozen=True)
class CaseResult:
    """The result of one case."""

    subject: PathText
    """Weights or bundle under test."""
    case: BenchmarkCase
    """Case that was measured."""
    sr: tuple[int, int]
    """Height and width of an upscaled frame in pixels."""
    measurements: tuple[Measurement, ...]
    """Times of every candidate that runs here."""
    ratios: tuple[Ratio, ...]
    """Ratios of every ordered pair."""
    skipped: dict[str, PathText]
    """Reasons by the names of the candidates that do not run here."""


Progress = Callable[[str, int, int], None]
"""Callback with the current activity, the rounds done, and all rounds (0 while unknown)."""


def run_interleaved(
    candidates: Sequence[Candidate],
    subject: Subject,
    case: BenchmarkCase,
    budget: TimingBudget,
    progress: Progress = lambda *_: None,
) -> CaseResult:
    """Measure the candidates on one case, taking turns.

    A candidate that does not run here is skipped with its reason.

    Args:
        candidates: Candidates to measure.
        subject: Networks under test.
        case: Case to measure.
        budget: Duration of the measurement.
        progress: Called during the measurement.

    Raises:
        IkcError: No candidate runs here; the error is that of the last one.
    """
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        lanes: list[_Lane] = []
        for candidate in candidates:
            progress(f"warming up {candidate.name}", 0, 0)
            try:
                lanes.append(_Lane.open(candidate, subject, case, budget, stack))
            except IkcError as error:
                skipped[candidate.name] = str(error)
                last = error
            except MemoryError as error:
                skipped[candidate.name] = "not enough memory; use a smaller --res or --batch"
                last = BackendError(f"{candidate.name}, {case}: {skipped[candidate.name]}")
                last.__cause__ = error
        if not lanes:
            raise last
        total = budget.rounds(min(lane.expected for lane in lanes))
        for done in range(total):
            progress("rounds", done, total)
            first = done % len(lanes)
            for lane in (*lanes[first:], *lanes[:first]):
                lane.timings.append(lane.runner.run())
        progress("rounds", total, total)
        measurements = tuple(lane.measurement(case) for lane in lanes)
        height, width = lanes[0].runner.image().shape[1:3]
    return CaseResult(
        str(subject), case, (height, width), measurements, _ratios(measurements), skipped
    )


@dataclass
class _Lane:
    candidate: Candidate
    runner: CandidateRunner
    expected: float
    """Duration, in seconds, of the last call of the warm-up."""
    timings: list[Timing]

    @classmethod
    def open(
        cls,
        candidate: Candidate,
        subject: Subject,
        case: BenchmarkCase,
        budget: TimingBudget,
        stack: ExitStack,
    ) -> _Lane:
        runner = candidate.open(subject, case)
        stack.callback(runner.close)
        began = time.perf_counter()
        while True:
            seconds = runner.run().total / 1e3
            if time.perf_counter() - began >= budget.warmup:
                return cls(candidate, runner, seconds, [])

    def measurement(self, case: BenchmarkCase) -> Measurement:
        totals = tuple(timing.total for timing in self.timings)
        names = self.timings[0].stages
        stages = {stage: fmean(timing.stages[stage] for timing in self.timings) for stage in names}
        summary = TimingSummary.of(totals)
        macs = self.runner.macs()
        return Measurement(
            candidate=self.candidate.name,
            about=self.candidate.about,
            ours=self.candidate.ours is not None,
            precision=self.runner.precision,
            library=self.runner.library,
            ms=totals,
            latency_ms=summary,
            fps=1e3 * case.batch / summary.median,
            stages_ms=stages,
            overhead=1 - sum(stages.values()) / summary.mean,
            macs=macs,
            gflops=None if macs is None else 2 * macs / summary.median / 1e6,
        )


def _ratios(measurements: Sequence[Measurement]) -> tuple[Ratio, ...]:
    return tuple(
        Ratio(one.candidate, other.candidate, paired_ratio(one.ms, other.ms))
        for one in measurements
        for other in measurements
        if one is not other
    )
