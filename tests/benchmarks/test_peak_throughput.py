from __future__ import annotations

from collections.abc import Callable

import pytest

from ikc_deploy.benchmarks import peak_throughput
from ikc_deploy.benchmarks.peak_throughput import highest, measure_peak_throughput


def test_both_libraries_are_rated_by_operations_and_bytes_in_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def half_a_second(call: Callable[[], object]) -> float:
        call()
        return 0.5

    monkeypatch.setattr(peak_throughput, "_SIDE", 100)
    monkeypatch.setattr(peak_throughput, "_COPIED", 1_000_000)
    monkeypatch.setattr(peak_throughput, "_fastest", half_a_second)
    found = measure_peak_throughput(threads=1)
    assert set(found) == {"onnxruntime", "torch"}
    for each in found.values():
        # A product of n x n takes n^3 multiplications and additions; a copy reads and writes.
        assert each.gflops == pytest.approx(2 * 100**3 / 0.5 / 1e9)
        assert each.gigabytes == pytest.approx(2 * 4e6 / 0.5 / 1e9)
    assert highest(found) == max(each.gflops for each in found.values())
    assert highest({}) is None
