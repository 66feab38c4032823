"""Parts of every command: errors as one line with exit code 2, and output streams.

File names are bytes, and a terminal may support no more than ASCII. No file name may stop a
command: `reports_errors` makes the standard streams replace what they cannot encode, for all code
that prints; `say`, `warn` and errors print control characters in names as escapes, so the terminal
does not interpret them.
"""

from __future__ import annotations

import codecs
import functools
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, ParamSpec, TypeVar, cast

import click
from rich.console import Console
from rich.markup import escape

from ikc_deploy.errors import IkcError, OutputError
from ikc_deploy.files import check_file
from ikc_deploy.imaging.image_io import IMAGE_SUFFIXES, list_folder
from ikc_deploy.text import escape_controls

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

HELP: Final = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""

out_console = Console()
"""Standard output: results."""

err_console = Console(stderr=True)
"""Standard error: progress, warnings and errors."""


def encodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return replacement characters for what cannot be encoded: an error handler for `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    length = error.end - error.start
    if error.encoding.lower().startswith("utf"):
        # As bytes: Python's UTF-8 encoder accepts only ASCII characters from a handler.
        return (length * "\N{REPLACEMENT CHARACTER}").encode(error.encoding), error.end
    return length * "?", error.end


def encodable_or_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return undecodable bytes of names as they are, and replacement characters for the rest."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return encodable(error)


_HANDLERS: Final = {
    "strict": ("ikc-encodable", encodable),
    "surrogatepass": ("ikc-encodable", encodable),
    "surrogateescape": ("ikc-encodable-or-bytes", encodable_or_bytes),
}
"""Replacements for the standard handlers that can fail, by the standard handler's name."""


def say(line: str, err: bool = False) -> None:
    """Print a line of results on standard output, or on standard error if `err`."""
    click.echo(escape_controls(line), err=err)


class CommandError(click.ClickException):
    """An error that ends the command: one message on standard error, exit code 2, no traceback."""

    exit_code = 2

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print the message."""
        text = escape(escape_controls(self.message))
        err_console.print(f"[bold red]error:[/] {text}", soft_wrap=True)


class _OutputFile(click.Path):
    """A path that is refused before the command runs if no file can be written there.

    `-` is not checked; the command interprets it.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        path: Any = super().convert(value, param, ctx)
        if str(path) != "-":
            try:
                check_file(path)
            except OutputError as error:
                raise CommandError(str(error)) from error
        return path


OUTPUT_FILE: Final = _OutputFile(path_type=Path)
"""Type of options that name a file to write."""


def reports_errors(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Return the command with errors of this project and the file system as `CommandError`.

    Each Python warning becomes a line on standard error.
    """

    @functools.wraps(command)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        _print_any_name()
        try:
            with warnings.catch_warnings():
                warnings.showwarning = cast(Any, _show_warning)
                return command(*args, **kwargs)
        except IkcError as error:
            raise CommandError(str(error)) from error
        except BrokenPipeError:
            # click exits quietly when the reader of a pipe (head, less) has ended.
            raise
        except OSError as error:
            raise CommandError(f"{error.strerror or error}: {error.filename or ''}") from error
        except KeyboardInterrupt:
            _interrupted()

    return run


def warn(message: str) -> None:
    """Print a line that begins with "warning:" on standard error."""
    err_console.print(
        f"[bold yellow]warning:[/] {escape(escape_controls(message))}", soft_wrap=True
    )


def note(message: str) -> None:
    """Print an informational line on standard error."""
    err_console.print(escape(escape_controls(message)), soft_wrap=True, highlight=False)


def note_skipped(inputs: Sequence[Path], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> None:
    """Print on standard error what was skipped in the folders among `inputs`, with the reason."""
    for path in inputs:
        if path.is_dir():
            for line in list_folder(path, suffixes).notes():
                note(line)


def _show_warning(message: Warning | str, *_: object) -> None:
    warn(str(message))


def _print_any_name() -> None:
    """Make the standard streams replace what they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _HANDLERS:
            name, handler = _HANDLERS[stream.errors]
            codecs.register_error(name, handler)
            stream.reconfigure(errors=name)


def _interrupted() -> NoReturn:
    err_console.print("interrupted")
    raise SystemExit(130)
