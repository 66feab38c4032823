"""Medians, their spread, and ratios of runs that took turns."""

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
    """A series of times (or ratios): the middle, and how far the rest lies from it."""

    median: float
    q25: float
    q75: float
    p90: float
    p99: float
    mean: float
    min: float

    @classmethod
    def of(cls, values: ArrayLike) -> TimingSummary:
        """Percentiles are interpolated. Raises `ValueError` for an empty series."""
        series = np.asarray(values, dtype=np.float64)
        if not series.size:
            raise ValueError("a series without values has no median")
        q25, median, q75, p90, p99 = (float(v) for v in np.percentile(series, (25, 50, 75, 90, 99)))
        return cls(median, q25, q75, p90, p99, float(series.mean()), float(series.min()))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> TimingSummary:
    """Times over times, round by round: what slows a whole round down cancels.

    Raises `ValueError` if the series differ in length.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds against {len(theirs)}: they did not take turns")
    return TimingSummary.of(np.asarray(ours, np.float64) / np.asarray(theirs, np.float64))


def ratio_interval(new: ArrayLike, old: ArrayLike) -> tuple[float, float]:
    """Where the ratio of two medians lies with 95 % confidence (percentile bootstrap, seeded).

    For series of different runs, which cannot be paired.
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
    """The exponent of time as a power of size (least squares in logarithms); None of one size."""
    if len(set(sizes)) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
