from __future__ import annotations

import pytest

from ikc_deploy.benchmarks import peak_throughput
from ikc_deploy.benchmarks.peak_throughput import highest, measure_peak_throughput


def test_both_libraries_have_a_ceiling_of_believable_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peak_throughput, "_SIDE", 128)
    monkeypatch.setattr(peak_throughput, "_COPIED", 1 << 16)
    monkeypatch.setattr(peak_throughput, "_TRIES", 2)
    found = measure_peak_throughput(threads=1)
    assert set(found) == {"onnxruntime", "torch"}
    for each in found.values():
        assert 0.01 < each.gflops < 1e5 and 0.01 < each.gigabytes < 1e5
    assert highest(found) == max(each.gflops for each in found.values())
    assert highest({}) is None
