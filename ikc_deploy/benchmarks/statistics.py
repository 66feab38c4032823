"""Medians, their spread, and ratios of interleaved runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

_RESAMPLES: Final = 2000
_CONFIDENCE: Final = 95


@dataclass(frozen=True)
class TimingSummary:
    """The summary of a series of times or ratios."""

    median: float
    """Median of the series."""
    q25: float
    """25th percentile."""
    q75: float
    """75th percentile."""
    p90: float
    """90th percentile."""
    p99: float
    """99th percentile."""
    mean: float
    """Arithmetic mean."""
    min: float
    """Smallest value."""

    @classmethod
    def of(cls, values: ArrayLike) -> TimingSummary:
        """Summarise a series; percentiles are interpolated.

        Raises:
            ValueError: The series is empty.
        """
        series = np.asarray(values, dtype=np.float64)
        if not series.size:
            raise ValueError("an empty series has no median; give at least one value")
        q25, median, q75, p90, p99 = (float(v) for v in np.percentile(series, (25, 50, 75, 90, 99)))
        return cls(median, q25, q75, p90, p99, float(series.mean()), float(series.min()))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> TimingSummary:
    """Summarise the ratios of two series of times, round by round.

    Load that slows a whole round cancels.

    Raises:
        ValueError: The series differ in length.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds against {len(theirs)}: the runs were not interleaved")
    return TimingSummary.of(np.asarray(ours, np.float64) / np.asarray(theirs, np.float64))


def ratio_interval(new: ArrayLike, old: ArrayLike) -> tuple[float, float]:
    """Return the 95 % confidence interval of the ratio of two medians.

    For series of different runs, which cannot be paired. Percentile bootstrap with a fixed seed.
    """
    random = np.random.default_rng(0)
    medians = [np.median(_resampled(series, random), axis=1) for series in (new, old)]
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(medians[0] / medians[1], (tail, 100 - tail))
    return float(low), float(high)


def _resampled(series: ArrayLike, random: np.random.Generator) -> np.ndarray:
    values = np.asarray(series, np.float64)
    return values[random.integers(0, len(values), (_RESAMPLES, len(values)))]


def slope(sizes: Sequence[float], times: Sequence[float]) -> float | None:
    """Return the exponent of time as a power of size; None if there is only one size.

    It is fitted by least squares in logarithms.
    """
    if len(set(sizes)) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
