"""A bench as a whole: the machine, its ceiling, and what was measured; to JSON and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ikc_deploy.benchmarks.case import Case
from ikc_deploy.benchmarks.ceiling import Ceiling, highest
from ikc_deploy.benchmarks.quality import Quality
from ikc_deploy.benchmarks.race import Entry, Ratio, Result
from ikc_deploy.benchmarks.statistics import Spread
from ikc_deploy.errors import InputError

SCHEMA: Final = 1


@dataclass(frozen=True)
class Report:
    """What `ikc-bench --json` writes."""

    command: str
    """What was asked for, as on a command line."""
    machine: Mapping[str, Any]
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)
    results: tuple[Result, ...] = ()
    qualities: tuple[Quality, ...] = ()

    def with_result(self, result: Result) -> Report:
        """The report with one more result."""
        return replace(self, results=(*self.results, result))

    def share_of_ceiling(self, entry: Entry) -> float | None:
        """GFLOP/s over the most that any library reached here in a matrix product."""
        ceiling = highest(dict(self.ceilings))
        return None if ceiling is None or entry.gflops is None else entry.gflops / ceiling

    def to_json(self) -> str:
        """The report as text."""
        return json.dumps({"schema": SCHEMA} | asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report in a file. Raises `InputError` if there is none of this schema."""
        try:
            values = json.loads(path.read_text())
            schema = values.pop("schema", None)
            if schema != SCHEMA:
                raise InputError(
                    f"'{path}' has schema {schema}, this version reads {SCHEMA}; measure again"
                )
            return _report(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"'{path}' is not a report of ikc-bench --json ({error}); measure again"
            ) from error

    def to_csv(self) -> str:
        """A line for each case and contestant; empty where unknown."""
        text = io.StringIO()
        writer: csv.DictWriter[str] | None = None
        for result, entry in entries(self.results):
            line = _line(result, entry) | {"share_of_ceiling": self.share_of_ceiling(entry)}
            if writer is None:
                writer = csv.DictWriter(text, list(line), lineterminator="\n")
                writer.writeheader()
            writer.writerow(line)
        return text.getvalue()


def entries(results: Sequence[Result]) -> list[tuple[Result, Entry]]:
    """Every contestant of every case."""
    return [(result, entry) for result in results for entry in result.entries]


def ratio(result: Result, of: str, to: str) -> Spread | None:
    """Time of one contestant over another's in one case; None if either did not run."""
    for pair in result.ratios:
        if (pair.of, pair.to) == (of, to):
            return pair.ratio
    return None


def _line(result: Result, entry: Entry) -> dict[str, Any]:
    return {
        "weights": result.subject,
        "contestant": entry.contestant,
        "precision": entry.precision,
        **asdict(result.case),
        "rounds": len(entry.ms),
        **{f"{name}_ms": value for name, value in asdict(entry.latency_ms).items()},
        "fps": entry.fps,
        **{f"{stage}_ms": value for stage, value in entry.stages_ms.items()},
        "overhead": entry.overhead,
        "macs": entry.macs,
        "gflops": entry.gflops,
        "peak_memory_mib": entry.peak_memory_mib,
    }


def _report(values: dict[str, Any]) -> Report:
    return Report(
        command=values["command"],
        machine=values["machine"],
        ceilings={name: Ceiling(**ceiling) for name, ceiling in values["ceilings"].items()},
        results=tuple(_result(result) for result in values["results"]),
        qualities=tuple(Quality(**quality) for quality in values["qualities"]),
    )


def _result(values: dict[str, Any]) -> Result:
    height, width = values["sr"]
    return Result(
        **values
        | {
            "case": Case(**values["case"]),
            "sr": (height, width),
            "entries": tuple(_entry(entry) for entry in values["entries"]),
            "ratios": tuple(
                Ratio(pair["of"], pair["to"], Spread(**pair["ratio"])) for pair in values["ratios"]
            ),
        }
    )


def _entry(values: dict[str, Any]) -> Entry:
    spread = Spread(**values["latency_ms"])
    return Entry(**values | {"ms": tuple(values["ms"]), "latency_ms": spread})
