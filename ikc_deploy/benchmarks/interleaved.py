"""Candidates that take turns: whatever slows the machine down slows all of them.

In each round every candidate runs once, and each round begins with the next one, so that none
always follows the same neighbour. Ratios are taken within rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from ikc_deploy.benchmarks.candidates import Candidate
from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.runners import STAGES, CandidateRunner, Timing
from ikc_deploy.benchmarks.statistics import TimingSummary, paired_ratio
from ikc_deploy.errors import BackendError, IkcError, InputError

MIN_ROUNDS: Final = 3
MAX_ROUNDS: Final = 200


@dataclass(frozen=True)
class TimingBudget:
    """How long to measure."""

    warmup: float = 1.0
    """Seconds of calls thrown away, for each candidate; one call at least."""
    min_time: float = 10.0
    """Seconds of timed calls, for each candidate; 3 rounds at least and 200 at most."""
    runs: int | None = None
    """Rounds; None for as many as `min_time` asks for."""

    def __post_init__(self) -> None:
        for name in ("warmup", "min_time"):
            if not 0 <= getattr(self, name) <= 3600:
                raise InputError(
                    f"{name} must lie in 0 to 3600 seconds, got {getattr(self, name):g}"
                )
        if self.runs is not None and self.runs < 1:
            raise InputError(f"runs must be at least 1, got {self.runs}")

    def rounds(self, seconds: float) -> int:
        """How many rounds to time, if the fastest candidate's call takes so long."""
        if self.runs is not None:
            return self.runs
        return min(MAX_ROUNDS, max(MIN_ROUNDS, round(self.min_time / seconds)))


@dataclass(frozen=True)
class Measurement:
    """What one candidate's calls took in one case."""

    candidate: str
    about: str
    ours: bool
    precision: str
    library: str
    ms: tuple[float, ...]
    """Milliseconds of each timed call, by round."""
    latency_ms: TimingSummary
    fps: float
    """Frames of the batch over the median time of a call."""
    stages_ms: dict[str, float]
    """Mean milliseconds of each network, summed over the loop."""
    overhead: float
    """Share of the mean time that no network accounts for: copies, conversions, bookkeeping."""
    macs: int | None
    """Multiply-accumulates that one call executes."""
    gflops: float | None
    """2 * macs over the median time, in 10^9 a second."""
    peak_memory_mib: float | None = None
    """Peak resident set of a process that does only this (see `memory`)."""


@dataclass(frozen=True)
class Ratio:
    """Time of one candidate over that of another, over the rounds."""

    of: str
    to: str
    ratio: TimingSummary


@dataclass(frozen=True)
class CaseResult:
    """One case, raced."""

    subject: str
    case: BenchmarkCase
    sr: tuple[int, int]
    """Height and width of an upscaled frame."""
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]
    """Of every ordered pair."""
    skipped: dict[str, str]
    """Candidates that do not run here, each with the reason."""


Progress = Callable[[str, int, int], None]
"""Called with what is being done, rounds done, and rounds in all (0 while unknown)."""


def run_interleaved(
    candidates: Sequence[Candidate],
    subject: Subject,
    case: BenchmarkCase,
    budget: TimingBudget,
    progress: Progress = lambda *_: None,
) -> CaseResult:
    """Measure the candidates on one case, taking turns.

    A candidate that does not open here is skipped with its reason; if it is the only one, its
    error is raised.
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
    """Seconds of the last call of the warm-up."""
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
        stages = {stage: fmean(timing.stages[stage] for timing in self.timings) for stage in STAGES}
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
