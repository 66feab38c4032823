"""Tables as text cells, which the terminal, Markdown and HTML show, and their Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(escape_markdown, cells)) + " |"


def escape_markdown(text: str) -> str:
    """Escape the characters that are markup in Markdown; folder names may hold any."""
    for character in r"\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
