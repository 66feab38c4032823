"""The simulation of fleets against formulas of queueing theory."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("simpy")

from tools.fleet.fleet_simulation import Fleet, TaskCost, simulate_fleet

FAST = Fleet(
    workers=1,
    worker_bandwidth=math.inf,
    store_bandwidth=math.inf,
    dispatch_rate=math.inf,
    failures_a_day=0,
    restart_seconds=0,
)


def fleet(**changes: float) -> Fleet:
    return Fleet(**{**vars(FAST), **changes})


def erlang_c(servers: int, offered: float) -> float:
    """The probability that a customer of M/M/c has to wait (Erlang, 1917)."""
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (4, 0.8)])
def test_random_work_waits_as_erlang_says(workers: int, load: float) -> None:
    report = simulate_fleet(fleet(workers=workers), TaskCost(2.0, 1.0, 0), 20_000, load, seed=1)
    chance = erlang_c(workers, workers * load)
    waited = float((report.waits > 1e-9).mean())
    mean = chance * 2.0 / (workers * (1 - load))
    # Four deviations of the mean of 20,000 correlated waits, estimated by ten other seeds.
    assert waited == pytest.approx(chance, abs=0.04)
    assert float(report.waits.mean()) == pytest.approx(mean, rel=0.15)
    assert report.busy["workers"] == pytest.approx(load, abs=0.03)


def test_constant_work_of_one_worker_waits_half_as_long() -> None:
    load = 0.7
    report = simulate_fleet(FAST, TaskCost(1.0, 0.0, 0), 20_000, load, seed=2)
    # Pollaczek and Khinchine: M/D/1.
    assert float(report.waits.mean()) == pytest.approx(load / (2 * (1 - load)), rel=0.1)


@pytest.mark.parametrize(
    ("changes", "seconds_a_task", "part"),
    [
        ({"workers": 8}, 1 / 8, "workers"),
        ({"workers": 100, "dispatch_rate": 5}, 1 / 5, "scheduler"),
        ({"workers": 100, "worker_bandwidth": 10, "store_bandwidth": 40}, 30 / 40, "store"),
    ],
)
def test_a_backlog_is_finished_at_the_rate_of_the_narrowest_part(
    changes: dict[str, float], seconds_a_task: float, part: str
) -> None:
    tasks = 2_000
    report = simulate_fleet(fleet(**changes), TaskCost(1.0, 0.0, 30), tasks)
    assert report.tasks == tasks
    assert report.seconds == pytest.approx(tasks * seconds_a_task, rel=0.05)
    assert report.bottleneck == part
    assert report.busy[part] == pytest.approx(1, abs=0.05)


def test_deaths_cost_what_the_formula_of_restarts_says() -> None:
    work, restart, rate = 100.0, 30.0, 1 / 200
    mortal = fleet(failures_a_day=rate * 86_400, restart_seconds=restart)
    report = simulate_fleet(mortal, TaskCost(work, 0.0, 0), 4_000, seed=3)
    # Constant work from the start after each death: (1 / rate + restart) (e^(rate work) - 1).
    expected = (1 / rate + restart) * math.expm1(rate * work)
    assert report.seconds / report.tasks == pytest.approx(expected, rel=0.05)
    assert report.deaths / report.tasks == pytest.approx(math.expm1(rate * work), rel=0.1)


def test_the_same_seed_is_the_same_day() -> None:
    runs = [
        simulate_fleet(fleet(workers=3), TaskCost(1, 0.5, 0), 500, 0.9, seed) for seed in (4, 4, 5)
    ]
    assert runs[0].seconds == runs[1].seconds != runs[2].seconds


def test_impossible_fleets_are_refused() -> None:
    with pytest.raises(ValueError, match="a worker"):
        fleet(workers=0)
    with pytest.raises(ValueError, match="at least one task"):
        simulate_fleet(FAST, TaskCost(1, 0, 0), 0)
