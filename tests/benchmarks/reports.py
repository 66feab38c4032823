"""Reports whose figures are known, without measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ikc_deploy.benchmarks.case import BenchmarkCase
from ikc_deploy.benchmarks.interleaved import CaseResult, Measurement, Ratio
from ikc_deploy.benchmarks.peak_throughput import PeakThroughput
from ikc_deploy.benchmarks.quality import CandidateQuality
from ikc_deploy.benchmarks.report import BenchmarkReport
from ikc_deploy.benchmarks.statistics import TimingSummary, paired_ratio

MACHINE = {
    "cpu": "Some <CPU> @ 3 GHz",
    "cores": 2,
    "memory_gib": 8.0,
    "os": "Some system",
    "load": 0.1,
    "python": "3.11.7",
    "packages": {"numpy": "2.4.6", "torch": None},
    "gpus": [],
}
"""What `describe_machine` gives; the CPU's name has what HTML must escape."""


def entry(name: str, ms: Sequence[float], ours: bool = True) -> Measurement:
    """An entry whose networks take 1, 90 and 8 % of the time."""
    spread = TimingSummary.of(ms)
    stages = {
        stage: share * spread.mean
        for stage, share in (("predictor", 0.01), ("sftmd", 0.9), ("corrector", 0.08))
    }
    return Measurement(
        candidate=name,
        about=f"about {name}",
        ours=ours,
        precision="fp32",
        library="onnxruntime" if ours else "torch",
        ms=tuple(ms),
        latency_ms=spread,
        fps=1e3 / spread.median,
        stages_ms=stages,
        overhead=0.01,
        macs=10**9,
        gflops=2e3 / spread.median,
        peak_memory_mib=200.0,
    )


def result(case: BenchmarkCase, times: Mapping[str, Sequence[float]]) -> CaseResult:
    """One case; candidates whose names begin with "onnxruntime" are ours."""
    entries = tuple(
        entry(name, ms, name.startswith("onnxruntime-fp")) for name, ms in times.items()
    )
    ratios = tuple(
        Ratio(one.candidate, other.candidate, paired_ratio(one.ms, other.ms))
        for one in entries
        for other in entries
        if one is not other
    )
    skipped = {"torch-compile": "no compiler <here>"}
    sides = (4 * case.height, 4 * case.width)
    return CaseResult("x4-lite", case, sides, entries, ratios, skipped)


def report(slowdown: float = 1.0) -> BenchmarkReport:
    """Two sizes, two candidates; time grows as the number of pixels, and ours takes half."""
    results = []
    for side in (32, 64):
        ms = [slowdown * side**2 / 100 * jitter for jitter in (0.99, 1.0, 1.01, 1.02, 0.98)]
        times = {"onnxruntime-fp32": ms, "reference-loop": [2 * value for value in ms]}
        results.append(result(BenchmarkCase(side, side), times))
    return BenchmarkReport(
        command="ikc-bench --res 32",
        machine=MACHINE,
        peak_throughput={"torch": PeakThroughput(gflops=200.0, gigabytes=20.0)},
        results=tuple(results),
        qualities=(CandidateQuality("x4-lite", "onnxruntime-fp32", 7, "Set5", 5, 30.88),),
    )
