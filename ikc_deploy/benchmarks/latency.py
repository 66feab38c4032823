"""What one frame costs: latency from call to result, its parts, and the memory it needs.

The clock runs around `upscaler(frame)`, copies in and out included: what an application waits for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.benchmarks.case import Case
from ikc_deploy.benchmarks.memory import peak_memory_mib
from ikc_deploy.bundle import Bundle
from ikc_deploy.runtime.loop import STAGES
from ikc_deploy.runtime.upscaler import Upscaler

WARM_UP_SECONDS: Final = 1.0
"""Calls are thrown away until this much time has passed; at least one is."""

DEFAULT_SECONDS: Final = 60.0
"""What a measurement may take if the number of runs is not given."""

LEAST_RUNS: Final = 3
MOST_RUNS: Final = 200

Progress = Callable[[int, int, float], None]
"""Called after every timed call with calls done, calls in all, and milliseconds of the last one.
The first time is after the warm-up, with 0 done."""


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds over the timed calls; percentiles are interpolated."""

    p50: float
    p90: float
    p99: float
    mean: float
    min: float

    @classmethod
    def of(cls, milliseconds: ArrayLike) -> Percentiles:
        """The percentiles of a series of times."""
        times = np.asarray(milliseconds, dtype=np.float64)
        p50, p90, p99 = np.percentile(times, (50, 90, 99))
        return cls(float(p50), float(p90), float(p99), float(times.mean()), float(times.min()))


@dataclass(frozen=True)
class Latency:
    """What the timed calls of one upscaler on one frame (or batch) took."""

    runs: int
    sr: tuple[int, int]
    """Height and width of the upscaled frame."""
    latency_ms: Percentiles
    fps: float
    """Frames of the batch over the mean time of a call."""
    stages_ms: dict[str, float]
    """Mean milliseconds of each network, summed over the loop. What the mean has beyond their
    sum went into copies and bookkeeping."""


@dataclass(frozen=True)
class CaseResult:
    """One measured case; as a dictionary, one entry of `results` in the JSON of ikc-bench."""

    weights: str
    backend: str
    precision: str
    iters: int
    lr: tuple[int, int]
    """Height and width."""
    sr: tuple[int, int]
    runs: int
    threads: int
    latency_ms: Percentiles
    fps: float
    stages_ms: dict[str, float]
    peak_memory_mib: float | None
    """Peak resident set of a process that does only this (see `memory`)."""


def measure_case(bundle: Bundle, case: Case, progress: Progress = lambda *_: None) -> CaseResult:
    """Measure one case on `bundle`. Raises `BackendError` if the backend does not run it."""
    with case.open(bundle) as upscaler:
        latency = measure_latency(upscaler, case.frame(upscaler), case.runs, progress)
        backend = upscaler.backend.name
    return CaseResult(
        weights=bundle.manifest.name,
        backend=backend,
        precision=bundle.manifest.precision,
        iters=case.iters,
        lr=(case.height, case.width),
        sr=latency.sr,
        runs=latency.runs,
        threads=case.threads,
        latency_ms=latency.latency_ms,
        fps=latency.fps,
        stages_ms=latency.stages_ms,
        peak_memory_mib=peak_memory_mib(bundle.path, case),
    )


def measure_latency(
    upscaler: Upscaler,
    frame: NDArray[Any],
    runs: int | None = None,
    progress: Progress = lambda *_: None,
) -> Latency:
    """Warm up, then time `runs` calls on `frame` (None: as many as fit in a minute, 3 to 200)."""
    expected, sr = _warm_up(upscaler, frame)
    total = runs or runs_that_fit(expected)
    progress(0, total, 1e3 * expected)
    times: list[float] = []
    stages = dict.fromkeys(STAGES, 0.0)
    for done in range(1, total + 1):
        started = time.perf_counter()
        result = upscaler(frame)
        times.append(1e3 * (time.perf_counter() - started))
        for stage in STAGES:
            stages[stage] += result.timings[stage] / total
        progress(done, total, times[-1])
    latency = Percentiles.of(times)
    batch = len(frame) if frame.ndim == 4 else 1
    return Latency(total, sr, latency, 1e3 * batch / latency.mean, stages)


def runs_that_fit(seconds: float) -> int:
    """How many calls of this length to time by default."""
    return min(MOST_RUNS, max(LEAST_RUNS, int(DEFAULT_SECONDS / seconds)))


def _warm_up(upscaler: Upscaler, frame: NDArray[Any]) -> tuple[float, tuple[int, int]]:
    began = time.perf_counter()
    while True:
        started = time.perf_counter()
        image = upscaler(frame).image
        now = time.perf_counter()
        if now - began >= WARM_UP_SECONDS:
            break
    channels_last = upscaler.bundle.manifest.io == "uint8"
    height, width = image.shape[-3:-1] if channels_last else image.shape[-2:]
    return now - started, (height, width)
