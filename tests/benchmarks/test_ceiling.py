from __future__ import annotations

import pytest

from ikc_deploy.benchmarks import ceiling
from ikc_deploy.benchmarks.ceiling import highest, measure_ceilings


def test_both_libraries_have_a_ceiling_of_believable_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ceiling, "_SIDE", 128)
    monkeypatch.setattr(ceiling, "_COPIED", 1 << 16)
    monkeypatch.setattr(ceiling, "_TRIES", 2)
    found = measure_ceilings(threads=1)
    assert set(found) == {"onnxruntime", "torch"}
    for each in found.values():
        assert 0.01 < each.gflops < 1e5 and 0.01 < each.gigabytes < 1e5
    assert highest(found) == max(each.gflops for each in found.values())
    assert highest({}) is None
