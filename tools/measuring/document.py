"""Fill the tables of docs/performance.md from results/*.json, so that no figure is copied by hand.

    python -m tools.measuring.document docs/performance.md benchmarks

Between `<!-- KIND NAME -->` and `<!-- end -->` it writes the KIND of table of `results/NAME.json`,
or a line that it has not been measured. Kinds: machine, latency, ratios, growth, quality,
prediction.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ikc_deploy.benchmarks.case import BenchmarkCase
from ikc_deploy.benchmarks.render.report_tables import (
    latency_table,
    machine_lines,
    quality_table,
    ratio_table,
    skipped_lines,
)
from ikc_deploy.benchmarks.report import BenchmarkReport, measurements_with_cases
from ikc_deploy.benchmarks.statistics import slope
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.files import write_atomically
from ikc_deploy.reporting.tables import Table, markdown_table
from tools.measuring.roofline import predict, read_cards

_BLOCK: Final = re.compile(r"(<!-- (\w+) ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PREDICTED: Final = ("x4-lite", "random:x4")
_SIZES: Final = ((256, 256), (540, 960), (1080, 1920))


def fill(text: str, workbench: Path) -> str:
    """Fill every block of a document.

    Args:
        text: Markdown document.
        workbench: Folder with results/ and cards.toml.

    Returns:
        The document with all blocks replaced.

    Raises:
        InputError: A kind does not exist, or results cannot be read.
    """

    def block(match: re.Match[str]) -> str:
        start, kind, name, end = match.groups()
        return f"{start}{_content(kind, name, workbench)}{end}"

    return _BLOCK.sub(block, text)


def _content(kind: str, name: str, workbench: Path) -> str:
    if kind == "prediction":
        return markdown_table(prediction_table(workbench / "cards.toml"))
    if kind not in _KINDS:
        raise InputError(f"unknown block '{kind}'; expected one of {', '.join(_KINDS)}, prediction")
    path = workbench / "results" / f"{name}.json"
    if not path.is_file():
        return f"Not measured yet: there is no results/{name}.json.\n"
    return _KINDS[kind](BenchmarkReport.read(path))


def growth_table(report: BenchmarkReport) -> Table:
    """Return the table of time and memory of each case by LR pixels."""
    rows = []
    for result, measurement in measurements_with_cases(report.results):
        pixels, peak = result.case.pixels, measurement.peak_memory_mib
        rows.append(
            (
                f"{result.subject}, {measurement.candidate}",
                f"{result.case.width}x{result.case.height}",
                str(result.case.batch),
                str(result.case.iters),
                f"{measurement.latency_ms.median:.0f}",
                f"{1e3 * measurement.latency_ms.median / pixels:.2f}",
                "" if peak is None else f"{peak:.0f}",
                "" if peak is None else f"{2**10 * peak / pixels:.1f}",
            )
        )
    header = (
        *("", "LR", "batch", "iters", "median ms", "us a LR pixel"),
        *("peak MiB", "KiB a LR pixel"),
    )
    return Table("growth", header, tuple(rows))


def prediction_table(cards: Path) -> Table:
    """Return the table of predicted ms of the loop with 7 corrections on each card.

    Args:
        cards: TOML file of the cards.
    """
    rows = []
    for weights in _PREDICTED:
        bundle: Bundle = default_bundle(weights)
        for card in read_cards(cards):
            found = [predict(bundle, BenchmarkCase(*size), card) for size in _SIZES]
            cells = (f"{p.fused:.1f}..{p.unfused:.1f}" for p in found)
            rows.append((f"{weights}, {card.name}", *cells))
    header = ("predicted ms, iters 7, float16", *(f"{width}x{height}" for height, width in _SIZES))
    return Table("prediction", header, tuple(rows))


def _machine(report: BenchmarkReport) -> str:
    lines = [f"`{report.command}`", *machine_lines(report), *skipped_lines(report)]
    return "".join(f"- {line}\n" for line in lines)


def _latency(report: BenchmarkReport) -> str:
    subjects = dict.fromkeys(result.subject for result in report.results)
    return "\n".join(_titled(latency_table(report, subject)) for subject in subjects)


def _ratios(report: BenchmarkReport) -> str:
    return "\n".join(_titled(ratio_table(result)) for result in report.results)


def _growth(report: BenchmarkReport) -> str:
    lines = []
    names = dict.fromkeys(
        measurement.candidate for _, measurement in measurements_with_cases(report.results)
    )
    for name in names:
        points = [
            (result.case.pixels, measurement.latency_ms.median)
            for result, measurement in measurements_with_cases(report.results)
            if measurement.candidate == name
        ]
        exponent = slope(*zip(*points, strict=True)) if len(points) > 1 else None
        if exponent is not None:
            lines.append(f"{name}: time grows as LR pixels to the power of {exponent:.2f}.")
    return markdown_table(growth_table(report)) + "".join(f"\n{line}\n" for line in lines)


def _quality(report: BenchmarkReport) -> str:
    return markdown_table(quality_table(report))


def _titled(table: Table) -> str:
    return f"{table.title}\n\n{markdown_table(table)}"


_KINDS: Final[dict[str, Callable[[BenchmarkReport], str]]] = {
    "machine": _machine,
    "latency": _latency,
    "ratios": _ratios,
    "growth": _growth,
    "quality": _quality,
}


if __name__ == "__main__":
    try:
        document = Path(sys.argv[1])
        filled = fill(document.read_text(), Path(sys.argv[2]))
        write_atomically(document, filled.encode())
    except IkcError as failure:
        sys.exit(str(failure))
