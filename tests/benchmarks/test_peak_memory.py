from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy import BackendError, Bundle
from ikc_deploy.benchmarks import peak_memory
from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.peak_memory import own_peak_mib, peak_memory_mib


def test_the_peak_is_of_the_frame_and_not_of_whoever_asked(small_bundle: Bundle) -> None:
    ballast = np.ones(300 << 20, np.uint8)
    subject = Subject(bundle=str(small_bundle.path))
    child = peak_memory_mib("onnxruntime-fp32", subject, BenchmarkCase(16, 16, 1, threads=1))
    own = own_peak_mib()
    assert own is not None and child is not None
    assert own > ballast.nbytes / 2**20 > child
    interpreter_and_numpy = 10
    assert child > interpreter_and_numpy


def test_a_process_that_fails_leaves_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"16x24.*is not a bundle"):
        peak_memory_mib("onnxruntime-fp32", Subject(bundle=str(tmp_path)), BenchmarkCase(24, 16))


def test_without_proc_the_system_call_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_this_process = own_peak_mib()
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "gone")
    peak = own_peak_mib()
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    assert of_this_process is not None and peak is not None
    # The call counts the peak before exec, too, so it may be higher.
    assert of_this_process - 1 <= peak <= installed
