"""What changed between two reports, beyond what chance explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ikc_deploy.benchmarks.report import BenchmarkReport, measurements_with_cases
from ikc_deploy.benchmarks.statistics import ratio_interval

MIN_CHANGE: Final = 0.03
"""Changes below 3 % are called noise whatever the interval says: runs of one program on an idle
machine differ by that much, and the rounds of one run do not show it."""

Verdict = Literal["faster", "slower", "same"]


@dataclass(frozen=True)
class Change:
    """One candidate in one case, in both reports."""

    subject: str
    candidate: str
    case: str
    old_ms: float
    new_ms: float
    low: float
    high: float
    """Where new over old lies with 95 % confidence."""

    @property
    def ratio(self) -> float:
        """New median over old."""
        return self.new_ms / self.old_ms

    @property
    def verdict(self) -> Verdict:
        """`same` unless the whole interval lies on one side of 1 and the change is large enough."""
        if self.high < 1 and self.ratio < 1 - MIN_CHANGE:
            return "faster"
        if self.low > 1 and self.ratio > 1 + MIN_CHANGE:
            return "slower"
        return "same"


def compare_reports(old: BenchmarkReport, new: BenchmarkReport) -> list[Change]:
    """Everything that both reports measured, in the order of the new one."""
    before = {
        (result.subject, measurement.candidate, result.case): measurement
        for result, measurement in measurements_with_cases(old.results)
    }
    found = []
    for result, measurement in measurements_with_cases(new.results):
        earlier = before.get((result.subject, measurement.candidate, result.case))
        if earlier is not None:
            low, high = ratio_interval(measurement.ms, earlier.ms)
            found.append(
                Change(
                    result.subject,
                    measurement.candidate,
                    str(result.case),
                    earlier.latency_ms.median,
                    measurement.latency_ms.median,
                    low,
                    high,
                )
            )
    return found


def same_machine(old: BenchmarkReport, new: BenchmarkReport) -> bool:
    """Whether both were measured on one kind of machine; the load may differ."""
    return all(old.machine.get(name) == new.machine.get(name) for name in ("cpu", "cores", "gpus"))
