from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.benchmarks.statistics import TimingSummary, paired_ratio, ratio_interval, slope

TIMES = st.lists(st.floats(0.1, 1e4), min_size=3, max_size=20)


def test_the_spread_of_a_known_series() -> None:
    found = TimingSummary.of(range(1, 102))
    assert found == TimingSummary(median=51, q25=26, q75=76, p90=91, p99=100, mean=51, min=1)


def test_a_series_without_values_has_no_spread() -> None:
    with pytest.raises(ValueError, match="no median"):
        TimingSummary.of([])


@given(TIMES, st.floats(0.1, 10))
def test_ratios_within_rounds_do_not_see_what_slows_a_whole_round(
    times: list[float], factor: float
) -> None:
    found = paired_ratio([factor * time for time in times], times)
    assert found.q25 == pytest.approx(factor) and found.q75 == pytest.approx(factor)


def test_series_that_did_not_take_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="were not interleaved"):
        paired_ratio([1.0], [1.0, 2.0])


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        new, old = random.normal(110, 5, 15), random.normal(100, 5, 15)
        low, high = ratio_interval(new, old)
        covered += low <= 1.1 <= high
    assert covered >= 88


@given(st.floats(0.3, 3), st.floats(0.1, 100))
def test_the_slope_of_a_power_is_its_exponent(exponent: float, factor: float) -> None:
    sizes = [64.0, 256.0, 4096.0]
    found = slope(sizes, [factor * size**exponent for size in sizes])
    assert found == pytest.approx(exponent)
    assert slope([64.0, 64.0], [1.0, 2.0]) is None
