"""The tables of a measurement as plain text cells; the terminal and Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ikc_deploy.evaluation.protocol import EvaluationReport
from ikc_deploy.evaluation.summary import CONFIDENCE_TEXT, DatasetSummary, Mean, SummaryRow
from ikc_deploy.reporting.tables import Table

_PREDICTOR: Final = "step 0: predictor only"


@dataclass(frozen=True)
class _Column:
    header: str
    cell: Callable[[SummaryRow], str]


def _value(mean: Mean | None, digits: int) -> str:
    return "" if mean is None else f"{mean.value:.{digits}f}"


def _interval(mean: Mean, digits: int) -> str:
    return "..".join(f"{bound:.{digits}f}" for bound in mean.interval or ())


_PSNR: Final = _Column("PSNR-Y dB", lambda row: _value(row.psnr_y, 2))
_SIGMA: Final = _Column("sigma MAE", lambda row: _value(row.sigma_mae, 3))
_KERNEL: Final = _Column("kernel dB", lambda row: _value(row.kernel_psnr, 1))
_COLUMNS: Final = (
    _PSNR,
    _Column(CONFIDENCE_TEXT, lambda row: _interval(row.psnr_y, 2)),
    _Column("SSIM-Y", lambda row: _value(row.ssim_y, 4)),
    _SIGMA,
    _KERNEL,
)


def tables(
    report: EvaluationReport, summaries: Sequence[DatasetSummary], per_blur: bool = False
) -> list[Table]:
    """Return a table for each dataset, with a row for each step.

    A column is present if any of its cells has a number; so there are no intervals for one image.

    Args:
        report: Measurement that the titles describe.
        summaries: Means of the measurement's records.
        per_blur: Whether to add tables with a row for each blur.
    """
    found = []
    for summary in summaries:
        found.append(_overview(report, summary))
        if per_blur:
            columns = (_PSNR, _SIGMA, _KERNEL)
            found.extend(filter(None, (_by_blur(summary, column) for column in columns)))
    return found


def _overview(report: EvaluationReport, summary: DatasetSummary) -> Table:
    manifest, protocol = report.manifest, report.protocol
    columns = [column for column in _COLUMNS if any(map(column.cell, summary.rows))]
    return Table(
        f"{summary.name} (images: {summary.images}), {protocol.blurs.title} x{manifest.scale}"
        f"{protocol.degradation.title}: {manifest.name}"
        f"{'' if report.estimate == 'full' else f', {report.estimate}'}"
        f"{', self-ensemble' if report.self_ensemble else ''}",
        ("", *(column.header for column in columns)),
        tuple(
            (_PREDICTOR if row.step == 0 else row.label, *(column.cell(row) for column in columns))
            for row in summary.rows
        ),
    )


def _by_blur(summary: DatasetSummary, column: _Column) -> Table | None:
    """Return a table with a row for each blur and a column for each method; None if empty."""
    methods = [row.label for row in summary.rows if column.cell(row)]
    if not methods:
        return None
    rows = (
        (blur.name, *(column.cell(row) for row in blur.rows if row.label in methods))
        for blur in summary.blurs
    )
    short = (label.removeprefix("step ").removesuffix(" kernel") for label in methods)
    return Table(f"{summary.name}: {column.header} by blur and step", ("", *short), tuple(rows))
