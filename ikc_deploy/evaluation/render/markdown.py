"""The tables of a measurement as Markdown, to be pasted into notes and cards."""

from __future__ import annotations

from collections.abc import Sequence

from ikc_deploy.evaluation.protocol import EvaluationReport
from ikc_deploy.evaluation.summary import CONFIDENCE_TEXT
from ikc_deploy.reporting.tables import Table, escape_markdown, markdown_table


def to_markdown(report: EvaluationReport, tables: Sequence[Table]) -> str:
    """Return a Markdown document: a summary of the measurement, then every table with its title."""
    manifest = report.manifest
    facts = (
        f"Weights {manifest.name}, x{manifest.scale}, {manifest.precision}. "
        f"{report.protocol.title}. Means over images and blurs at fixed steps; "
        f"{CONFIDENCE_TEXT} intervals of PSNR-Y by bootstrap over images. Sigma in HR pixels."
    )
    return "\n".join([facts, *(_section(table) for table in tables)])


def _section(table: Table) -> str:
    return f"\n## {escape_markdown(table.title)}\n\n{markdown_table(table)}"
