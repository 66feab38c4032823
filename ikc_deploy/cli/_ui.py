"""Terminal output of all commands: lines, warnings, tables, JSON and progress bars.

File names are bytes, and a terminal may support no more than ASCII. No file name may stop a
command: `print_any_name` makes the standard streams replace what they cannot encode, for all code
that prints. Lines print control characters in names as escapes, so the terminal does not interpret
them.
"""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table as Grid
from rich.text import Text

from ikc_deploy.imaging.input_files import list_folder, list_tree
from ikc_deploy.imaging.suffixes import READABLE_SUFFIXES
from ikc_deploy.text import escape_controls

_stdout = Console()
"""Standard output: results."""

_stderr = Console(stderr=True)
"""Standard error: progress, warnings and errors."""


def say(line: str, err: bool = False) -> None:
    """Print a line of results on standard output, or on standard error if `err`."""
    click.echo(escape_controls(line), err=err)


def note(message: str) -> None:
    """Print an informational line on standard error, above the progress bars."""
    _stderr.print(Text(escape_controls(message)), soft_wrap=True, highlight=False)


def warn(message: str) -> None:
    """Print a line that begins with "warning:" on standard error."""
    _marked("bold yellow", "warning", message)


def fail(message: str) -> None:
    """Print a message that begins with "error:" on standard error."""
    _marked("bold red", "error", message)


def problem(message: str) -> None:
    """Print a result that begins with "problem:" on standard output."""
    _stdout.print(f"[bold red]problem:[/] {escape(escape_controls(message))}", soft_wrap=True)


def _marked(style: str, mark: str, message: str) -> None:
    _stderr.print(f"[{style}]{mark}:[/] {escape(escape_controls(message))}", soft_wrap=True)


def result(line: str) -> None:
    """Print a line of results while progress bars are shown.

    Where both standard streams are one terminal, it goes above the bars, not into them.
    """
    if _stderr.is_terminal and sys.stdout.isatty():
        note(line)
    else:
        say(line)


def counted(number: int, what: str) -> str:
    """Return a number and its noun: "1 frame", "2 frames"."""
    return f"{number} {what}{'s' * (number != 1)}"


def note_skipped(
    inputs: Iterable[Path],
    suffixes: Sequence[str] = READABLE_SUFFIXES,
    recursive_to: Path | None = None,
) -> None:
    """Print on standard error what was skipped in the folders among `inputs`, with the reason."""
    for path in inputs:
        if path.is_dir():
            listings = [list_folder(path, suffixes)] if recursive_to is None else []
            if recursive_to is not None:
                listings = list_tree(path, suffixes, leave_out=recursive_to)
            for line in (line for listing in listings for line in listing.notes()):
                note(line)


def print_json(value: object, indent: int | None = 2) -> None:
    """Print a value as JSON on standard output, on one line if `indent` is None."""
    say(json.dumps(value, indent=indent))


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str | Text]], *, wrap: bool = False
) -> None:
    """Print a table on standard output.

    Args:
        title: Line above the table; empty for none.
        header: Names of the columns.
        rows: Cells. Strings are printed as they are, without markup.
        wrap: Whether cells may be wrapped, for text. Otherwise columns after the first hold numbers
            and the table has its full width: a narrow terminal wraps lines, but no digit is lost.
    """
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(header):
        if wrap:
            grid.add_column(Text(name), overflow="fold")
        else:
            grid.add_column(Text(name), justify="right" if index else "left", no_wrap=True)
    for cells in rows:
        grid.add_row(*(Text(escape_controls(c)) if isinstance(c, str) else c for c in cells))
    if not wrap:
        unlimited = _stdout.options.update(width=10_000)
        grid.width = Measurement.get(_stdout, unlimited, grid).maximum
    if title:
        _stdout.print(Text(title, style="italic"), soft_wrap=True)
    _stdout.print(grid, crop=False)


def status(message: str) -> Status:
    """Return a context that shows a message on standard error while a block runs."""
    return _stderr.status(escape(escape_controls(message)))


class ProgressBars:
    """Progress bars on standard error, one for each name, each with a note and the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(
        self, name: str, done: int, total: int | None = None, text: str = "", unit: str = ""
    ) -> None:
        """Set a bar, and create it if it is new.

        Args:
            name: Name of the bar.
            done: Number of completed steps.
            total: Number of all steps; None while unknown.
            text: Text after the counts: the current file or phase, or a loss.
            unit: Unit of the steps per second, for example "fps"; empty to show none.
        """
        text = escape_controls(text)
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(
                escape_controls(name), completed=done, total=total, text=text, unit=unit
            )
        self._progress.update(self._tasks[name], completed=done, total=total, text=text)

    def remove(self, name: str) -> None:
        """Remove a bar, if it is there."""
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))


@contextmanager
def progress_bars(
    *, keep: bool = False, hidden: bool = False
) -> Generator[ProgressBars, None, None]:
    """Show progress bars during a block; nothing where standard error is no terminal.

    Args:
        keep: Whether the bars stay when the block ends.
        hidden: Whether to show nothing at all.
    """
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _StepsPerSecond(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(),
    ]
    with Progress(
        *columns,
        console=_stderr,
        transient=not keep,
        # True would redirect results meant for a file or a pipe to standard error.
        redirect_stdout=False,
        # Off a terminal even a transient bar leaves an empty line behind.
        disable=hidden or not _stderr.is_terminal,
    ) as progress:
        yield ProgressBars(progress)


class _StepsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the recent number of steps per second, if the bar has a unit for it."""
        unit = task.fields["unit"]
        return Text(f"{task.speed:.2f} {unit}" if unit and task.speed is not None else "")


def print_any_name() -> None:
    """Make the standard streams replace what they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _HANDLERS:
            name, handler = _HANDLERS[stream.errors]
            codecs.register_error(name, handler)
            stream.reconfigure(errors=name)


def _encodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return replacement characters for what cannot be encoded: an error handler for `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    length = error.end - error.start
    if error.encoding.lower().startswith("utf"):
        # As bytes: Python's UTF-8 encoder accepts only ASCII characters from a handler.
        return (length * "\N{REPLACEMENT CHARACTER}").encode(error.encoding), error.end
    return length * "?", error.end


def _encodable_or_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return undecodable bytes of names as they are, and replacement characters for the rest."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return _encodable(error)


_HANDLERS: Final = {
    "strict": ("ikc-encodable", _encodable),
    "surrogatepass": ("ikc-encodable", _encodable),
    "surrogateescape": ("ikc-encodable-or-bytes", _encodable_or_bytes),
}
"""Replacements for the standard handlers that can fail, by the standard handler's name."""
