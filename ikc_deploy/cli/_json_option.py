"""The option `--json` of commands that print one report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from ikc_deploy.cli._option_group import option_group
from ikc_deploy.option_fields import Option


@dataclass(frozen=True)
class ReportFormat:
    """The format of a report on standard output."""

    as_json: Annotated[bool, Option("Print the results as JSON.", flags=("--json",))] = False


json_option: Final = option_group(ReportFormat, None)
"""Decorator that adds `--json` to a command, as its parameter `as_json`."""
