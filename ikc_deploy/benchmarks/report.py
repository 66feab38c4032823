"""The report of a benchmark: machine, peak throughput and measurements; to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ikc_deploy.benchmarks.interleaved import CaseResult, Measurement
from ikc_deploy.benchmarks.peak_throughput import PeakThroughput, highest
from ikc_deploy.benchmarks.quality import CandidateQuality
from ikc_deploy.benchmarks.statistics import TimingSummary
from ikc_deploy.errors import InputError
from ikc_deploy.parsing import read_json
from ikc_deploy.reporting.tables import csv_text
from ikc_deploy.typed_values import PathText, read_settings

SCHEMA: Final = 1


@dataclass(frozen=True)
class BenchmarkReport:
    """The report of a benchmark, as `ikc-bench --json` writes it."""

    command: PathText
    """Command line that repeats the benchmark."""
    machine: dict[str, Any]
    """Description of the machine (`machine.describe_machine`)."""
    peak_throughput: dict[str, PeakThroughput] = field(default_factory=dict)
    """Peak throughput by library."""
    results: tuple[CaseResult, ...] = ()
    """Results in the order of measurement."""
    qualities: tuple[CandidateQuality, ...] = ()
    """Qualities in the order of measurement."""

    def with_result(self, result: CaseResult) -> BenchmarkReport:
        """Return the report with one more result."""
        return replace(self, results=(*self.results, result))

    def share_of_peak(self, measurement: Measurement) -> float | None:
        """Return a measurement's share of the highest peak throughput; None if unknown."""
        peak = highest(self.peak_throughput)
        return None if peak is None or measurement.gflops is None else measurement.gflops / peak

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps({"schema": SCHEMA} | asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> BenchmarkReport:
        """Read a report from a file.

        Raises:
            InputError: The file is missing, not a report, or of another schema.
        """
        try:
            values = read_json(path.read_bytes())
            schema = values.pop("schema", None)
            if schema != SCHEMA:
                raise InputError(
                    f"'{path}' has schema {schema}, but this version reads {SCHEMA}; measure again"
                )
            return read_settings(cls, values)
        except OSError as error:
            raise InputError(f"'{path}' cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"'{path}' is not a report of ikc-bench --json ({error}); measure again"
            ) from error

    def to_csv(self) -> str:
        """Return CSV with a line for each case and candidate; empty where unknown."""
        lines = [
            _line(result, measurement) | {"share_of_peak": self.share_of_peak(measurement)}
            for result, measurement in measurements_with_cases(self.results)
        ]
        return csv_text(list(lines[0]), lines) if lines else ""


def measurements_with_cases(results: Sequence[CaseResult]) -> list[tuple[CaseResult, Measurement]]:
    """Return every measurement with its case."""
    return [(result, measurement) for result in results for measurement in result.measurements]


def ratio(result: CaseResult, of: str, to: str) -> TimingSummary | None:
    """Return the ratio of two candidates' times in one case; None if either did not run."""
    for pair in result.ratios:
        if (pair.of, pair.to) == (of, to):
            return pair.ratio
    return None


def _line(result: CaseResult, measurement: Measurement) -> dict[str, Any]:
    return {
        "weights": result.subject,
        "candidate": measurement.candidate,
        "precision": measurement.precision,
        **asdict(result.case),
        "rounds": len(measurement.ms),
        **{f"{name}_ms": value for name, value in asdict(measurement.latency_ms).items()},
        "fps": measurement.fps,
        **{f"{stage}_ms": value for stage, value in measurement.stages_ms.items()},
        "overhead": measurement.overhead,
        "macs": measurement.macs,
        "gflops": measurement.gflops,
        "peak_memory_mib": measurement.peak_memory_mib,
    }
