"""A table on a terminal."""

from __future__ import annotations

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from ikc_deploy.evaluation.render.tables import Table


def print_table(console: Console, table: Table) -> None:
    """Print `table` at its full width: a narrow terminal wraps lines, but no digit is lost."""
    grid = rich_table.Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, header in enumerate(table.header):
        grid.add_column(header, justify="right" if index else "left", no_wrap=True)
    for cells in table.rows:
        grid.add_row(*cells)
    unlimited = console.options.update(width=10_000)
    grid.width = Measurement.get(console, unlimited, grid).maximum
    # As Text, because folder names may hold square brackets, which are markup in a plain string.
    console.print(Text(table.title, style="italic"), soft_wrap=True)
    console.print(grid, crop=False)
