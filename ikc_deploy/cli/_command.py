"""Parts of every command: errors as one line with exit code 2, and help under headings."""

from __future__ import annotations

import functools
import textwrap
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar, cast, get_args

import click

from ikc_deploy.cli._ui import fail, note, print_any_name, warn
from ikc_deploy.errors import IkcError
from ikc_deploy.option_fields import Heading
from ikc_deploy.version import __version__

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_NO_HINTS: Final[Mapping[str, str]] = {}

HELP: Final = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""


class CommandError(click.ClickException):
    """An error that ends the command: one message on standard error, exit code 2, no traceback."""

    exit_code = 2

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print the message."""
        fail(self.message)


def reports_errors(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Return the command with errors of this project and the file system as `CommandError`.

    Each Python warning becomes a line on standard error. Apply it outside all option groups, which
    raise `InputError`.
    """

    @functools.wraps(command)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        print_any_name()
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
            note("interrupted")
            raise SystemExit(130) from None

    return run


def _show_warning(message: Warning | str, *_: object) -> None:
    warn(str(message))


class OptionWithHeading(click.Option):
    """An option with a heading for the help; empty for the most used options."""

    def __init__(self, *args: Any, heading: Heading = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class CommandOfPaths(click.Command):
    """A command that refuses an option of a file or folder that is given twice.

    Of two other values, the last one counts, so that an alias may be overridden. Of two files, one
    would be missing. It has `--version`.

    Args:
        *args: As of `click.Command`.
        hints: Sentences by options that the command lacks and similar programs have.
        **settings: As of `click.Command`.
    """

    def __init__(self, *args: Any, hints: Mapping[str, str] = _NO_HINTS, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.append(
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_version,
                help="Show the version and exit.",
            )
        )
        self._hints = hints

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        try:
            return self._parsed(ctx, args)
        except click.NoSuchOption as error:
            hint = self._hints.get(error.option_name)
            if hint is not None:
                raise CommandError(f"there is no option {error.option_name}: {hint}") from error
            raise

    def _parsed(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in order:
                single = isinstance(parameter, click.Option) and not parameter.multiple
                is_path = isinstance(parameter.type, click.Path)
                if single and is_path and order.count(parameter) > 1:
                    raise CommandError(
                        f"{parameter.opts[0]} is given {order.count(parameter)} times; give it once"
                    )
        return super().parse_args(ctx, args)


class CommandWithHeadings(CommandOfPaths):
    """A command with many options.

    `--help` explains those without a heading and lists the names of the others by heading;
    `--help-all` explains all of them.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show this message with all options, and exit.",
            )
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those with a heading by name only unless all are requested."""
        by_heading: dict[str, list[click.Parameter]] = {name: [] for name in get_args(Heading)}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option):
                by_heading[getattr(parameter, "heading", "")].append(parameter)
        _write_section(ctx, formatter, "Options", by_heading.pop(""))
        if ctx.meta.get(_ALL):
            for heading, parameters in by_heading.items():
                _write_section(ctx, formatter, heading, parameters)
            return
        with formatter.section("More options, explained by --help-all"):
            width = max(map(len, by_heading)) + 2
            for heading, parameters in by_heading.items():
                names = ", ".join(parameter.opts[0] for parameter in parameters)
                indent = " " * formatter.current_indent
                lines = textwrap.wrap(
                    names,
                    max(formatter.width, width + 40),
                    initial_indent=f"{indent}{heading:{width}}",
                    subsequent_indent=indent + " " * width,
                    break_on_hyphens=False,
                )
                formatter.write("\n".join(lines) + "\n")


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"ikc-deploy {__version__}")
        ctx.exit()


_ALL: Final = f"{__name__}.all"


def _show_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _write_section(
    ctx: click.Context,
    formatter: click.HelpFormatter,
    heading: str,
    parameters: list[click.Parameter],
) -> None:
    records = [record for each in parameters if (record := each.get_help_record(ctx))]
    with formatter.section(heading):
        formatter.write_dl(records)
