from __future__ import annotations

import importlib
import re
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import click
import pytest
from click.types import FloatParamType

from ikc_deploy.cli._command import reports_errors
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._value_types import FiniteNumber, FiniteRange
from ikc_deploy.cli.ikc_upscale import main as upscale
from ikc_deploy.option_fields import Option, check_options
from tests.cli.running import assert_one_clear_line, invoke

HEADINGS = ("Blur:", "Output:", "Video:", "Speed and memory:", "Distributed:")


@dataclass(frozen=True)
class Size:
    max_side: Annotated[int, Option("Side.", minimum=1)] = 8


@dataclass(frozen=True)
class Work:
    share: Annotated[float, Option("Share.", minimum=0, maximum=1)] = 0.5
    mode: Annotated[Literal["a", "b"] | None, Option("Mode.", default="by size")] = None
    size: Size = field(default_factory=Size)
    names: Annotated[tuple[str, ...], Option("Names.", flags=("--name",))] = ()
    fast: Annotated[bool, Option("Fast.")] = True
    even: Annotated[int | None, Option("Even.")] = None

    def __post_init__(self) -> None:
        check_options(self)


@click.command()
@reports_errors
@option_group(Work, "work", types={"even": int})
def command(work: Work) -> None:
    click.echo(repr(work))
    click.echo(", ".join(given_options(Work)))


def test_the_dataclass_is_made_from_the_command_line() -> None:
    arguments = ("--share", 1, "--mode", "b", "--max-side", 9, "--name", "x", "--name", "y")
    made, given = invoke(command, *arguments, "--no-fast").stdout.splitlines()
    assert made == repr(Work(1.0, "b", Size(9), ("x", "y"), fast=False))
    assert given == "--share, --mode, --max-side, --name, --fast"
    assert invoke(command).stdout.splitlines() == [repr(Work()), ""]


def test_help_states_default_and_range() -> None:
    text = " ".join(invoke(command, "--help").stdout.split())
    assert "Share. [default: 0.5] [0<=x<=1]" in text
    assert "--mode [a|b] Mode. [default: by size]" in text
    assert "Side. [default: 8] [x>=1]" in text


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "2", "x"])
def test_a_number_out_of_range_is_refused(value: str) -> None:
    result = invoke(command, "--share", value)
    assert result.exit_code == 2 and "'--share'" in result.stderr


def commands(repository: Path) -> dict[str, click.Command]:
    setup = ConfigParser()
    setup.read(repository / "setup.cfg")
    listed = re.findall(r"(ikc-\w+) = (\S+):main", setup["options.entry_points"]["console_scripts"])
    return {name: importlib.import_module(module).main for name, module in listed}


def test_no_option_of_any_command_takes_nan(repository: Path) -> None:
    found = commands(repository)
    assert len(found) == 11
    numbers = 0
    for name, each in found.items():
        for parameter in each.params:
            kinds = getattr(parameter.type, "types", [parameter.type])
            for kind in kinds:
                if isinstance(kind, FloatParamType):
                    numbers += 1
                    finite = isinstance(kind, FiniteNumber | FiniteRange)
                    # The message about a wrong sigma names the range of the bundle.
                    assert finite or (name, parameter.name) == ("ikc-upscale", "sigma")
    assert numbers > 8


@pytest.mark.parametrize(
    "option", ["--crf", "--noise", "--max-memory", "--max-pixels", "--start", "--rate", "--tile"]
)
@pytest.mark.parametrize("value", ["nan", "inf", "-1e400", "1e99999999", "9" * 5000, "9" * 400])
def test_absurd_numbers_are_usage_errors(option: str, value: str) -> None:
    result = invoke(upscale, "in.png", "-o", "out.png", option, value)
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert f"Invalid value for '{option}'" in result.stderr


def test_help_explains_ten_options_and_names_the_others() -> None:
    brief = invoke(upscale, "--help").stdout
    explained = brief.partition("Options:")[2].partition("More options")[0]
    assert 5 <= len(re.findall(r"^  -", explained, re.MULTILINE)) <= 10
    everything = invoke(upscale, "--help-all").stdout
    positions = [everything.index(f"\n{heading}\n") for heading in HEADINGS]
    assert positions == sorted(positions)
    for parameter in upscale.params:
        if isinstance(parameter, click.Option):
            name = parameter.opts[0]
            assert name in brief and name in everything
            assert re.search(rf"^  (-\w, )?{name}\b", everything, re.MULTILINE), name


def test_options_that_need_another_name_it() -> None:
    for option, value, needed in (("--border", "wrap", "--kernel"), ("--actors", 2, "--ray")):
        result = invoke(upscale, "in.png", "-o", "out.png", option, value)
        assert_one_clear_line(result, option, f"belong to {needed}")
