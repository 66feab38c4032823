"""The tables of a measurement as Markdown, to be pasted into notes and cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ikc_deploy.evaluation.protocol import EvaluationReport
from ikc_deploy.evaluation.render.tables import Table
from ikc_deploy.evaluation.summary import CONFIDENCE_TEXT


def to_markdown(report: EvaluationReport, tables: Sequence[Table]) -> str:
    """Return a Markdown document: a summary of the measurement, then every table with its title."""
    manifest = report.manifest
    facts = (
        f"Weights {manifest.name}, x{manifest.scale}, {manifest.precision}. "
        f"{report.protocol.title}. Means over images and blurs at fixed steps; "
        f"{CONFIDENCE_TEXT} intervals of PSNR-Y by bootstrap over images. Sigma in HR pixels."
    )
    return "\n".join([facts, *(_section(table) for table in tables)])


def markdown_table(table: Table) -> str:
    """Return the lines of a Markdown table, without its title."""
    rule = ["---"] + ["---:"] * (len(table.header) - 1)
    lines = [_line(table.header), f"|{'|'.join(rule)}|", *(_line(row) for row in table.rows)]
    return "\n".join(lines) + "\n"


def _section(table: Table) -> str:
    return f"\n## {_plain(table.title)}\n\n{markdown_table(table)}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    """Escape the characters that are markup in Markdown; folder names may hold any."""
    for character in r"\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
