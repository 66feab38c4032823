"""Running a command in the test's own process, and what its refusals look like."""

from __future__ import annotations

from pathlib import Path

from click import Command
from click.testing import CliRunner, Result


def invoke(command: Command, *arguments: str | Path | float) -> Result:
    """The result of `command` with these arguments."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def assert_one_clear_line(result: Result, *words: str) -> None:
    """Exit code 2, nothing on standard output, one line on standard error with these words."""
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    for word in words:
        assert word in result.stderr
