"""Tables as text cells, which the terminal, Markdown and HTML show; their Markdown, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of text cells; the first column holds labels, the others numbers."""

    title: str
    """Title of the table."""
    header: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Cells, each row as long as the header."""


def markdown_table(table: Table) -> str:
    """Return the lines of a Markdown table, without its title."""
    rule = ["---"] + ["---:"] * (len(table.header) - 1)
    lines = [_line(table.header), f"|{'|'.join(rule)}|", *(_line(row) for row in table.rows)]
    return "\n".join(lines) + "\n"


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return CSV: a header, and a line for each row, whose values are empty where unknown."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(escape_markdown, cells)) + " |"


def escape_markdown(text: str) -> str:
    """Escape the characters that are markup in Markdown; folder names may hold any."""
    for character in r"\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
