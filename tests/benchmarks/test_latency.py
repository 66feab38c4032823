from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from ikc_deploy.benchmarks.latency import (
    LEAST_RUNS,
    MOST_RUNS,
    Percentiles,
    measure_case,
    measure_latency,
    runs_that_fit,
)
from numpy.typing import NDArray

from ikc_deploy import Bundle, Upscaler
from ikc_deploy.benchmarks.case import Case
from ikc_deploy.benchmarks.images import natural_frame
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.loop import STAGES


class TakesPlanes:
    """As much of an `Upscaler` on a float bundle as a measurement uses."""

    bundle = SimpleNamespace(manifest=SimpleNamespace(io="float"))

    def __call__(self, frame: NDArray[np.float32]) -> SimpleNamespace:
        assert frame.dtype == np.float32 and frame.max() <= 1
        image = np.zeros((3, 4 * frame.shape[1], 4 * frame.shape[2]), np.float32)
        return SimpleNamespace(image=image, timings=dict.fromkeys(STAGES, 0.0))


@pytest.fixture(autouse=True)
def one_warm_up_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikc_deploy.benchmarks.latency.WARM_UP_SECONDS", 0.0)


def test_percentiles_of_a_known_series() -> None:
    found = Percentiles.of(range(1, 102))
    assert found == Percentiles(p50=51, p90=91, p99=100, mean=51, min=1)


def test_the_default_number_of_runs_fits_in_a_minute() -> None:
    assert runs_that_fit(1e-4) == MOST_RUNS
    assert runs_that_fit(0.5) == 120
    assert runs_that_fit(100) == LEAST_RUNS


def test_a_case_agrees_with_itself(small_bundle: Bundle) -> None:
    result = measure_case(small_bundle, Case(16, 24, iters=2, threads=1, runs=5))
    assert (result.lr, result.sr) == ((16, 24), (64, 96))
    assert (result.weights, result.backend, result.precision) == ("small", "onnxruntime", "fp32")
    assert (result.iters, result.runs, result.threads) == (2, 5, 1)
    times = result.latency_ms
    assert 0 < times.min <= times.p50 <= times.p90 <= times.p99
    assert times.min <= times.mean
    assert result.fps == pytest.approx(1000 / times.mean)
    assert tuple(result.stages_ms) == STAGES
    assert all(result.stages_ms.values())
    assert sum(result.stages_ms.values()) <= times.mean
    assert result.peak_memory_mib and result.peak_memory_mib > 0
    assert set(asdict(result)) == {
        "weights",
        "backend",
        "precision",
        "iters",
        "lr",
        "sr",
        "runs",
        "threads",
        "latency_ms",
        "fps",
        "stages_ms",
        "peak_memory_mib",
    }


def test_progress_begins_after_the_warm_up_and_batches_count_every_frame(
    small_bundle: Bundle,
) -> None:
    frames = np.stack([natural_frame(8, 8, seed) for seed in range(3)])
    seen: list[tuple[int, int]] = []
    with Case(8, 8, iters=0, threads=1).open(small_bundle) as upscaler:
        latency = measure_latency(upscaler, frames, 4, lambda done, of, _: seen.append((done, of)))
    assert seen == [(done, 4) for done in range(5)]
    assert latency.fps == pytest.approx(3000 / latency.latency_ms.mean)
    assert latency.sr == (32, 32)
    assert latency.stages_ms["corrector"] == 0


def test_a_bundle_that_takes_float_planes_is_given_planes() -> None:
    case = Case(8, 16)
    upscaler = cast(Upscaler, TakesPlanes())
    latency = measure_latency(upscaler, case.frame(upscaler), 1)
    assert latency.sr == (32, 64)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"height": 7}, "16x7 is too small"),
        ({"iters": -1}, "iters must be at least 0"),
        ({"threads": -1}, "threads must be at least 0"),
        ({"runs": 0}, "runs must be at least 1"),
    ],
)
def test_impossible_cases_are_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(Case(16, 16), **values)  # type: ignore[arg-type]
