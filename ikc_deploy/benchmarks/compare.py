"""The comparison of two reports: changes beyond what chance explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ikc_deploy.benchmarks.report import BenchmarkReport, measurements_with_cases
from ikc_deploy.benchmarks.statistics import ratio_interval

MIN_CHANGE: Final = 0.03
"""Smallest relative change that is reported, regardless of the interval: runs of one program on an
idle machine differ by up to 3 %, which the rounds of one run do not show."""

Verdict = Literal["faster", "slower", "same"]


@dataclass(frozen=True)
class Change:
    """The change of one candidate in one case between two reports."""

    subject: str
    """Weights or bundle under test."""
    candidate: str
    """Name of the candidate."""
    case: str
    """Case as text."""
    old_ms: float
    """Old median time of a call in milliseconds."""
    new_ms: float
    """New median time of a call in milliseconds."""
    low: float
    """Lower bound of the 95 % confidence interval of new over old."""
    high: float
    """Upper bound of the same interval."""

    @property
    def ratio(self) -> float:
        """Ratio of the new median to the old one."""
        return self.new_ms / self.old_ms

    @property
    def verdict(self) -> Verdict:
        """Verdict: "same" unless the interval excludes 1 and the change exceeds `MIN_CHANGE`."""
        if self.high < 1 and self.ratio < 1 - MIN_CHANGE:
            return "faster"
        if self.low > 1 and self.ratio > 1 + MIN_CHANGE:
            return "slower"
        return "same"


def compare_reports(old: BenchmarkReport, new: BenchmarkReport) -> list[Change]:
    """Return the changes of all that both reports measured, in the order of the new one."""
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
    """Return whether both were measured on the same kind of machine; the load may differ."""
    return all(old.machine.get(name) == new.machine.get(name) for name in ("cpu", "cores", "gpus"))
