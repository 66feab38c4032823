from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ikc_deploy import Bundle
from ikc_deploy.benchmarks.candidates import Candidate, choose
from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.interleaved import MAX_ROUNDS, MIN_ROUNDS, TimingBudget, run_interleaved
from ikc_deploy.benchmarks.report import ratio
from ikc_deploy.benchmarks.runners import Timing
from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.loops import IKC

QUICK = TimingBudget(warmup=0, runs=3)
CASE = BenchmarkCase(16, 24, iters=2, threads=1)


class Scripted:
    """A runner whose calls take what a script says."""

    precision, library = "fp32", "script"

    def __init__(self, name: str, milliseconds: list[float], calls: list[str]) -> None:
        self.name, self.script, self.calls = name, iter(milliseconds), calls

    def run(self) -> Timing:
        self.calls.append(self.name)
        total = next(self.script)
        return Timing(total, dict.fromkeys(IKC.graphs, total / 4))

    def image(self) -> NDArray[np.uint8]:
        return np.zeros((1, 64, 96, 3), np.uint8)

    def macs(self) -> int:
        return 10**6

    def close(self) -> None:
        self.calls.append(f"{self.name} closed")


def scripted(times: dict[str, list[float]], calls: list[str]) -> list[Candidate]:
    return [
        Candidate(name, name, lambda *_, name=name, ms=ms: Scripted(name, ms, calls))
        for name, ms in times.items()
    ]


def test_candidates_take_turns_and_another_one_begins_each_round() -> None:
    calls: list[str] = []
    # The first value is the warm-up's; in round 3 everything is ten times slower.
    times = {"a": [9.0, 1.0, 2.0, 10.0], "b": [9.0, 2.0, 4.0, 20.0]}
    found = run_interleaved(scripted(times, calls), Subject("x"), CASE, QUICK)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b", "b closed", "a closed"]
    a, b = found.measurements
    assert (a.ms, b.ms) == ((1, 2, 10), (2, 4, 20))
    halved = ratio(found, "a", "b")
    assert halved is not None and (halved.q25, halved.median, halved.q75) == (0.5, 0.5, 0.5)
    assert ratio(found, "a", "c") is None
    assert a.latency_ms.median == 2 and a.fps == 500
    assert a.overhead == pytest.approx(1 / 4)
    assert a.gflops == pytest.approx(2e6 / 2e-3 / 1e9)
    assert found.sr == (64, 96)


def test_rounds_fill_the_time_asked_for() -> None:
    effort = TimingBudget(min_time=10)
    assert [effort.rounds(seconds) for seconds in (1e-4, 0.5, 60)] == [
        MAX_ROUNDS,
        20,
        MIN_ROUNDS,
    ]
    assert TimingBudget(runs=7).rounds(60) == 7


def test_all_kinds_of_candidates_give_the_same_picture(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    subject = Subject(str(small_checkpoint))
    names = "onnxruntime-fp32,reference-loop,torch-eager,torch-channels-last,onnxruntime-plain,"
    names += "openvino-plain-fp32"
    images = {}
    for candidate in choose(names):
        runner = candidate.open(subject, replace(CASE, batch=2))
        timing = runner.run()
        assert timing.total >= sum(timing.stages.values()) > 0
        assert set(timing.stages) == set(IKC.graphs)
        assert runner.macs()
        images[candidate.name] = runner.image()
        runner.close()
    ours = images.pop("onnxruntime-fp32")
    assert ours.shape == (2, 64, 96, 3) and ours.dtype == np.uint8
    for name, image in images.items():
        assert np.abs(image.astype(int) - ours).max() <= 1, name


def test_the_reference_loop_corrects_once_more_than_it_uses(small_checkpoint: Path) -> None:
    subject = Subject(str(small_checkpoint))
    plain, reference = (
        candidate.open(subject, CASE).macs() for candidate in choose("torch-eager,reference-loop")
    )
    no_corrections = choose("torch-eager")[0].open(subject, replace(CASE, iters=0)).macs()
    one = choose("torch-eager")[0].open(subject, replace(CASE, iters=1)).macs()
    assert plain and reference and no_corrections and one
    correction_and_pass = one - no_corrections
    assert 0 < reference - plain < correction_and_pass


def test_who_does_not_run_is_skipped_with_the_reason(small_bundle: Bundle) -> None:
    subject = Subject(bundle=str(small_bundle.path))
    found = run_interleaved(choose("onnxruntime-fp32,torch-eager"), subject, CASE, QUICK)
    assert [entry.candidate for entry in found.measurements] == ["onnxruntime-fp32"]
    assert "torch needs weights" in found.skipped["torch-eager"]
    with pytest.raises(InputError, match="torch needs weights"):
        run_interleaved(choose("torch-eager"), subject, CASE, QUICK)


def test_a_frame_that_does_not_fit_into_memory_is_one_error() -> None:
    def open_huge(*_: object) -> Scripted:
        raise MemoryError

    with pytest.raises(BackendError, match="not enough memory"):
        run_interleaved([Candidate("huge", "huge", open_huge)], Subject("x"), CASE, QUICK)


@pytest.mark.parametrize("values", [{"warmup": -1.0}, {"min_time": 1e9}, {"runs": 0}])
def test_impossible_efforts_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must"):
        TimingBudget(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"height": 7}, "24x7 is too small"),
        ({"iters": -1}, "iters must be at least 0"),
        ({"threads": -1}, "threads must be at least 0"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_impossible_cases_are_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(CASE, **values)


def test_unknown_candidates_are_named_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"'nobody'.*onnxruntime-fp32.*torch-compile"):
        choose("torch-eager,nobody")
    with pytest.raises(InputError, match="twice"):
        choose("torch-eager,torch-eager")
    everyone = [candidate.name for candidate in choose("all")]
    assert {"onnxruntime-int8", "reference-loop", "torch-compile"} <= set(everyone)
    assert not [name for name in everyone if name.startswith("auto")]
