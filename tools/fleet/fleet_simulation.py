"""Discrete-event simulation of a fleet: a scheduler, workers that die, and a shared store.

A task (an image, or a chunk of a clip) waits for a worker in order of arrival. The scheduler hands
out one task after another; the worker fetches the input from the store, works, and writes the
output. A worker that dies loses its task, which returns to the head of the queue, and comes back
after a time. The store serves as many transfers at once as its bandwidth has shares of a worker's.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import simpy

SECONDS_A_DAY: Final = 86_400.0
_RETRY, _FIRST_TRY = 0, 1


@dataclass(frozen=True)
class TaskCost:
    """What one task costs a worker and the store."""

    seconds: float
    """Mean seconds of work: decode, upscale and encode."""
    variation: float
    """Coefficient of variation of the work (gamma distribution); 0 for constant work."""
    bytes_moved: float
    """Bytes of input and output together."""

    def __post_init__(self) -> None:
        """Require a positive time, and no negative variation or size."""
        if self.seconds <= 0 or self.variation < 0 or self.bytes_moved < 0:
            raise ValueError(f"seconds must be positive, the others not negative: {self}")


@dataclass(frozen=True)
class Fleet:
    """Machines, network and scheduler; rates are per second, sizes in bytes."""

    workers: int
    """Number of workers; each does one task at a time."""
    worker_bandwidth: float
    """Bytes a second that one worker can move."""
    store_bandwidth: float
    """Bytes a second that the store serves to all workers together."""
    dispatch_rate: float
    """Tasks a second that the scheduler can hand out; infinity for no limit."""
    failures_a_day: float
    """Mean number of deaths of a worker in a day of work."""
    restart_seconds: float
    """Seconds from the death of a worker to its next task."""

    def __post_init__(self) -> None:
        """Require at least one worker, positive rates, and no negative times."""
        rates = (self.worker_bandwidth, self.store_bandwidth, self.dispatch_rate)
        if self.workers < 1 or min(rates) <= 0:
            raise ValueError(f"a fleet needs a worker and positive rates: {self}")
        if self.failures_a_day < 0 or self.restart_seconds < 0:
            raise ValueError(f"failures and restarts must not be negative: {self}")

    @property
    def transfers_at_once(self) -> int:
        """Number of transfers that the store serves at the full speed of a worker."""
        if math.isinf(self.store_bandwidth):
            return self.workers
        return max(1, int(self.store_bandwidth / self.worker_bandwidth))


@dataclass(frozen=True)
class FleetReport:
    """What happened to the tasks of one simulation."""

    tasks: int
    """Number of finished tasks."""
    seconds: float
    """Simulated seconds from the first arrival to the last finished task."""
    waits: np.ndarray
    """Seconds from arrival to the first second on a worker, `[tasks]`, ascending."""
    deaths: int
    """Number of deaths of workers, each of which lost a task."""
    busy: dict[str, float]
    """Share of the time in which "workers", "store" and "scheduler" were occupied, 0 to 1."""

    @property
    def tasks_a_day(self) -> float:
        """Rate of finished tasks."""
        return self.tasks / self.seconds * SECONDS_A_DAY

    @property
    def bottleneck(self) -> str:
        """The part that was occupied for the largest share of the time."""
        return max(self.busy, key=lambda part: self.busy[part])

    def wait(self, percentile: float) -> float:
        """Return a percentile (0 to 100) of the seconds that tasks waited for a worker."""
        return float(np.percentile(self.waits, percentile))


@dataclass(order=True)
class _Task:
    """A waiting task; the order is that in which workers take them."""

    priority: int
    arrived: float
    started: float | None = field(default=None, compare=False)


class _Simulation:
    def __init__(self, fleet: Fleet, task: TaskCost, seed: int) -> None:
        self._fleet, self._task = fleet, task
        self._random = np.random.default_rng(seed)
        self.clock = simpy.Environment()
        self._waiting = simpy.PriorityStore(self.clock)
        self._store = simpy.Resource(self.clock, fleet.transfers_at_once)
        self._scheduler = simpy.Resource(self.clock, 1)
        self.waits: list[float] = []
        self.finished = 0.0
        self.deaths = 0
        self.busy = dict.fromkeys(("workers", "store", "scheduler"), 0.0)
        self._transfer = task.bytes_moved / 2 / fleet.worker_bandwidth
        self._dispatch = 1 / fleet.dispatch_rate

    def arrivals(self, tasks: int, rate: float) -> Generator[Any, Any, None]:
        """Let tasks arrive at random with a rate a second; infinity for all at once."""
        for _ in range(tasks):
            if math.isfinite(rate):
                yield self.clock.timeout(self._random.exponential(1 / rate))
            yield self._waiting.put(_Task(_FIRST_TRY, self.clock.now))

    def worker(self) -> Generator[Any, Any, None]:
        """Do one task after another, as long as there are any."""
        while True:
            task = yield self._waiting.get()
            taken = self.clock.now
            yield from self._occupied(self._scheduler, self._dispatch, "scheduler")
            task.started = self.clock.now if task.started is None else task.started
            survived = yield from self._tried()
            self.busy["workers"] += self.clock.now - taken
            if survived:
                self.waits.append(task.started - task.arrived)
                self.finished = self.clock.now
            else:
                yield self._waiting.put(_Task(_RETRY, task.arrived, task.started))
                yield self.clock.timeout(self._fleet.restart_seconds)

    def _tried(self) -> Generator[Any, Any, bool]:
        """Fetch, work, write; return whether the worker survived it."""
        work = self._work()
        life = self._life()
        yield from self._occupied(self._store, self._transfer, "store")
        yield self.clock.timeout(min(work, life))
        if life < work:
            self.deaths += 1
            return False
        yield from self._occupied(self._store, self._transfer, "store")
        return True

    def _occupied(
        self, resource: simpy.Resource, seconds: float, part: str
    ) -> Generator[Any, Any, None]:
        if seconds == 0:
            return
        with resource.request() as turn:
            yield turn
            yield self.clock.timeout(seconds)
            self.busy[part] += seconds

    def _work(self) -> float:
        if self._task.variation == 0:
            return self._task.seconds
        shape = self._task.variation**-2
        return float(self._random.gamma(shape, self._task.seconds / shape))

    def _life(self) -> float:
        failures = self._fleet.failures_a_day
        return float(self._random.exponential(SECONDS_A_DAY / failures)) if failures else math.inf


def simulate_fleet(
    fleet: Fleet, task: TaskCost, tasks: int, load: float = math.inf, seed: int = 0
) -> FleetReport:
    """Simulate a number of tasks from an empty fleet to the last one.

    Args:
        fleet: Workers, store and scheduler.
        task: Cost of every task.
        tasks: Number of tasks, at least 1.
        load: Arrivals a second as a share of what the workers alone could finish, arriving at
            random (Poisson); infinity lets all tasks wait from the start, as a backlog.
        seed: Seed of arrivals, work and deaths.

    Raises:
        ValueError: There is no task, or the load is not positive.
    """
    if tasks < 1 or load <= 0:
        raise ValueError(f"expected at least one task and a positive load: {tasks}, {load}")
    run = _Simulation(fleet, task, seed)
    run.clock.process(run.arrivals(tasks, load * fleet.workers / task.seconds))
    for _ in range(fleet.workers):
        run.clock.process(run.worker())
    run.clock.run()
    seconds = run.finished
    capacity = {"workers": fleet.workers, "store": fleet.transfers_at_once, "scheduler": 1}
    busy = {part: run.busy[part] / seconds / capacity[part] for part in capacity}
    return FleetReport(tasks, seconds, np.sort(run.waits), run.deaths, busy)
