"""Contestants that take turns: whatever slows the machine down slows all of them.

In each round every contestant runs once, and each round begins with the next one, so that none
always follows the same neighbour. Ratios are taken within rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from ikc_deploy.benchmarks.case import Case, Subject
from ikc_deploy.benchmarks.contestants import Contestant
from ikc_deploy.benchmarks.runners import STAGES, Runner, Timing
from ikc_deploy.benchmarks.statistics import Spread, paired_ratio
from ikc_deploy.errors import BackendError, IkcError, InputError

LEAST_ROUNDS: Final = 3
MOST_ROUNDS: Final = 200


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    warmup: float = 1.0
    """Seconds of calls thrown away, for each contestant; one call at least."""
    min_time: float = 10.0
    """Seconds of timed calls, for each contestant; 3 rounds at least and 200 at most."""
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
        """How many rounds to time, if the fastest contestant's call takes so long."""
        if self.runs is not None:
            return self.runs
        return min(MOST_ROUNDS, max(LEAST_ROUNDS, round(self.min_time / seconds)))


@dataclass(frozen=True)
class Entry:
    """What one contestant's calls took in one case."""

    contestant: str
    about: str
    ours: bool
    precision: str
    library: str
    ms: tuple[float, ...]
    """Milliseconds of each timed call, by round."""
    latency_ms: Spread
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
    """Time of one contestant over that of another, over the rounds."""

    of: str
    to: str
    ratio: Spread


@dataclass(frozen=True)
class Result:
    """One case, raced."""

    subject: str
    case: Case
    sr: tuple[int, int]
    """Height and width of an upscaled frame."""
    entries: tuple[Entry, ...]
    ratios: tuple[Ratio, ...]
    """Of every ordered pair."""
    skipped: dict[str, str]
    """Contestants that do not run here, each with the reason."""


Progress = Callable[[str, int, int], None]
"""Called with what is being done, rounds done, and rounds in all (0 while unknown)."""


def race(
    contestants: Sequence[Contestant],
    subject: Subject,
    case: Case,
    effort: Effort,
    progress: Progress = lambda *_: None,
) -> Result:
    """Measure the contestants on one case, taking turns.

    A contestant that does not open here is skipped with its reason; if it is the only one, its
    error is raised.
    """
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        lanes: list[_Lane] = []
        for contestant in contestants:
            progress(f"warming up {contestant.name}", 0, 0)
            try:
                lanes.append(_Lane.open(contestant, subject, case, effort, stack))
            except IkcError as error:
                skipped[contestant.name] = str(error)
                last = error
            except MemoryError as error:
                skipped[contestant.name] = "not enough memory; use a smaller --res or --batch"
                last = BackendError(f"{contestant.name}, {case}: {skipped[contestant.name]}")
                last.__cause__ = error
        if not lanes:
            raise last
        total = effort.rounds(min(lane.expected for lane in lanes))
        for done in range(total):
            progress("rounds", done, total)
            first = done % len(lanes)
            for lane in (*lanes[first:], *lanes[:first]):
                lane.timings.append(lane.runner.run())
        progress("rounds", total, total)
        entries = tuple(lane.entry(case) for lane in lanes)
        height, width = lanes[0].runner.image().shape[1:3]
    return Result(str(subject), case, (height, width), entries, _ratios(entries), skipped)


@dataclass
class _Lane:
    contestant: Contestant
    runner: Runner
    expected: float
    """Seconds of the last call of the warm-up."""
    timings: list[Timing]

    @classmethod
    def open(
        cls,
        contestant: Contestant,
        subject: Subject,
        case: Case,
        effort: Effort,
        stack: ExitStack,
    ) -> _Lane:
        runner = contestant.open(subject, case)
        stack.callback(runner.close)
        began = time.perf_counter()
        while True:
            seconds = runner.run().total / 1e3
            if time.perf_counter() - began >= effort.warmup:
                return cls(contestant, runner, seconds, [])

    def entry(self, case: Case) -> Entry:
        totals = tuple(timing.total for timing in self.timings)
        stages = {stage: fmean(timing.stages[stage] for timing in self.timings) for stage in STAGES}
        spread = Spread.of(totals)
        macs = self.runner.macs()
        return Entry(
            contestant=self.contestant.name,
            about=self.contestant.about,
            ours=self.contestant.ours is not None,
            precision=self.runner.precision,
            library=self.runner.library,
            ms=totals,
            latency_ms=spread,
            fps=1e3 * case.batch / spread.median,
            stages_ms=stages,
            overhead=1 - sum(stages.values()) / spread.mean,
            macs=macs,
            gflops=None if macs is None else 2 * macs / spread.median / 1e6,
        )


def _ratios(entries: Sequence[Entry]) -> tuple[Ratio, ...]:
    return tuple(
        Ratio(one.contestant, other.contestant, paired_ratio(one.ms, other.ms))
        for one in entries
        for other in entries
        if one is not other
    )
