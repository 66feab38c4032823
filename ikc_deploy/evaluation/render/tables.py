"""The tables of a measurement as plain text cells; the terminal and Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ikc_deploy.evaluation.protocol import Report
from ikc_deploy.evaluation.summary import CONFIDENCE_TEXT, DatasetSummary, Mean, Row

_PREDICTOR: Final = "step 0: predictor only"


@dataclass(frozen=True)
class Table:
    """Text in rows under a header; the first column holds labels, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Column:
    header: str
    digits: int
    mean: Callable[[Row], Mean | None]
    interval: bool = False

    def cell(self, row: Row) -> str:
        mean = self.mean(row)
        if mean is None:
            return ""
        if not self.interval:
            return f"{mean.value:.{self.digits}f}"
        return (
            ""
            if mean.interval is None
            else "..".join(f"{bound:.{self.digits}f}" for bound in mean.interval)
        )


_PSNR: Final = _Column("PSNR-Y dB", 2, lambda row: row.psnr_y)
_SIGMA: Final = _Column("sigma MAE", 3, lambda row: row.sigma_mae)
_KERNEL: Final = _Column("kernel dB", 1, lambda row: row.kernel_psnr)
_COLUMNS: Final = (
    _PSNR,
    _Column(CONFIDENCE_TEXT, 2, lambda row: row.psnr_y, interval=True),
    _Column("SSIM-Y", 4, lambda row: row.ssim_y),
    _SIGMA,
    _KERNEL,
)


def tables(
    report: Report, summaries: Sequence[DatasetSummary], per_blur: bool = False
) -> list[Table]:
    """One table for each dataset, rows by step; then, if asked for, tables with rows by blur.

    A column is there if any of its cells has a number; intervals therefore are not for one image.
    """
    found = []
    for summary in summaries:
        found.append(_overview(report, summary))
        if per_blur:
            columns = (_PSNR, _SIGMA, _KERNEL)
            found.extend(filter(None, (_by_blur(summary, column) for column in columns)))
    return found


def _overview(report: Report, summary: DatasetSummary) -> Table:
    manifest, protocol = report.manifest, report.protocol
    columns = [column for column in _COLUMNS if any(map(column.cell, summary.rows))]
    return Table(
        f"{summary.name} (images: {summary.images}), {protocol.blurs.title} x{manifest.scale}"
        f"{protocol.degradation.title}: {manifest.name}",
        ("", *(column.header for column in columns)),
        tuple(
            (_PREDICTOR if row.step == 0 else row.label, *(column.cell(row) for column in columns))
            for row in summary.rows
        ),
    )


def _by_blur(summary: DatasetSummary, column: _Column) -> Table | None:
    """Blurs down, ways of upscaling across; None if the column has no number at all."""
    methods = [row.label for row in summary.rows if column.cell(row)]
    rows = [
        (blur.name, *(column.cell(row) for row in blur.rows if row.label in methods))
        for blur in summary.blurs
    ]
    if not methods:
        return None
    short = (label.removeprefix("step ").removesuffix(" kernel") for label in methods)
    return Table(f"{summary.name}: {column.header} by blur and step", ("", *short), tuple(rows))
