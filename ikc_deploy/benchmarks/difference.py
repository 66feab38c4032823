"""What changed between two reports, beyond what chance explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ikc_deploy.benchmarks.report import Report, entries
from ikc_deploy.benchmarks.statistics import ratio_interval

SMALLEST_CHANGE: Final = 0.03
"""Changes below 3 % are called noise whatever the interval says: runs of one program on an idle
machine differ by that much, and the rounds of one run do not show it."""

Verdict = Literal["faster", "slower", "same"]


@dataclass(frozen=True)
class Change:
    """One contestant in one case, in both reports."""

    subject: str
    contestant: str
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
        if self.high < 1 and self.ratio < 1 - SMALLEST_CHANGE:
            return "faster"
        if self.low > 1 and self.ratio > 1 + SMALLEST_CHANGE:
            return "slower"
        return "same"


def changes(old: Report, new: Report) -> list[Change]:
    """Everything that both reports measured, in the order of the new one."""
    before = {
        (result.subject, entry.contestant, result.case): entry
        for result, entry in entries(old.results)
    }
    found = []
    for result, entry in entries(new.results):
        earlier = before.get((result.subject, entry.contestant, result.case))
        if earlier is not None:
            low, high = ratio_interval(entry.ms, earlier.ms)
            found.append(
                Change(
                    result.subject,
                    entry.contestant,
                    str(result.case),
                    earlier.latency_ms.median,
                    entry.latency_ms.median,
                    low,
                    high,
                )
            )
    return found


def same_machine(old: Report, new: Report) -> bool:
    """Whether both were measured on one kind of machine; the load may differ."""
    return all(old.machine.get(name) == new.machine.get(name) for name in ("cpu", "cores", "gpus"))
