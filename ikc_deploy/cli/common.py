"""What every command shares: errors as one line with exit code 2, and where text goes."""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, ParamSpec, TypeVar, cast

import click
from rich.console import Console
from rich.markup import escape

from ikc_deploy.errors import IkcError, OutputError
from ikc_deploy.files import check_file

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

HELP: Final = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""

out_console = Console()
"""Results."""

err_console = Console(stderr=True)
"""Progress, warnings and errors."""


class CommandError(click.ClickException):
    """A clear sentence on standard error, exit code 2, no traceback."""

    exit_code = 2

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print the message."""
        err_console.print(f"[bold red]error:[/] {escape(self.message)}", soft_wrap=True)


class _OutputFile(click.Path):
    """A path that is refused, before the command does anything, if no file can be written there.

    `-` is left to the command.
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
"""The type of options that name a file to write."""


def reports_errors(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorator: errors of this project and of the file system become a `CommandError`.

    Python's warnings become a line each on standard error.
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
            # click ends quietly when the reader of a pipe (head, less) has gone.
            raise
        except OSError as error:
            raise CommandError(f"{error.strerror or error}: {error.filename or ''}") from error
        except KeyboardInterrupt:
            _interrupted()

    return run


def _print_any_name() -> None:
    """Let no name end a command because a terminal or log is strict about what it encodes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def warn(message: str) -> None:
    """Print a line that begins with "warning:" on standard error."""
    err_console.print(f"[bold yellow]warning:[/] {escape(message)}", soft_wrap=True)


def _show_warning(message: Warning | str, *_: object) -> None:
    warn(str(message))


def _interrupted() -> NoReturn:
    err_console.print("interrupted")
    raise SystemExit(130)
