from __future__ import annotations

import importlib
import re
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import click
import pytest
from click.types import FloatParamType, IntParamType

import ikc_deploy
from ikc_deploy.cli._command import OptionWithHeading, reports_errors
from ikc_deploy.cli._option_group import given_options, given_values, option_group
from ikc_deploy.cli._value_types import FiniteNumber, FiniteRange, WholeNumber, WholeRange
from ikc_deploy.cli.ikc_upscale import main as upscale
from ikc_deploy.errors import InputError
from ikc_deploy.option_fields import Option, check_options
from tests.cli.running import assert_one_clear_line, invoke

HEADINGS = ("Blur:", "Output:", "Video:", "Speed and memory:", "Distributed:")


@dataclass(frozen=True)
class Size:
    max_side: Annotated[int, Option("Side.", minimum=1)] = 8

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Work:
    share: Annotated[float, Option("Share.", minimum=0, maximum=1)] = 0.5
    mode: Annotated[Literal["a", "b"] | None, Option("Mode.", default="by size")] = None
    size: Size = field(default_factory=Size)
    names: Annotated[tuple[str, ...], Option("Names.", flags=("--name",))] = ()
    fast: Annotated[bool, Option("Fast.")] = True
    even: Annotated[int | None, Option("Even.")] = None
    hours: Annotated[float, Option("Hours.", positive=True)] = 1.5
    depth: Annotated[
        Literal["low", "high"],
        Option("Depth.", switches=(("low", "Low depth."), ("high", "High depth."))),
    ] = "low"

    def __post_init__(self) -> None:
        check_options(self)


@click.command()
@reports_errors
@option_group(Work, "work", types={"even": int})
def command(work: Work) -> None:
    click.echo(repr(work))
    click.echo(", ".join(given_options(Work)))
    click.echo(repr(given_values(Work)))


def test_the_dataclass_is_made_from_the_command_line() -> None:
    arguments = ("--share", 1, "--mode", "b", "--max-side", 9, "--name", "x", "--name", "y")
    made, given, values = invoke(command, *arguments, "--no-fast", "--high").stdout.splitlines()
    assert made == repr(Work(1.0, "b", Size(9), ("x", "y"), fast=False, depth="high"))
    assert given == "--share, --mode, --max-side, --name, --fast, --high"
    assert values == repr(
        {
            "share": 1.0,
            "mode": "b",
            "max_side": 9,
            "names": ("x", "y"),
            "fast": False,
            "depth": "high",
        }
    )
    assert invoke(command).stdout.splitlines() == [repr(Work()), "", "{}"]


def test_a_switch_for_its_default_is_given_and_two_switches_contradict() -> None:
    made, given, values = invoke(command, "--low").stdout.splitlines()
    assert (made, given, values) == (repr(Work()), "--low", "{'depth': 'low'}")
    assert_one_clear_line(invoke(command, "--low", "--high"), "only one of --low and --high")


def test_help_states_default_and_range() -> None:
    text = " ".join(invoke(command, "--help").stdout.split())
    assert "Share. [default: 0.5] [0<=x<=1]" in text
    assert "--mode [a|b] Mode. [default: by size]" in text
    assert "Side. [default: 8] [x>=1]" in text
    assert "--name TEXT Names. [repeatable]" in text
    assert "--low Low depth. [default] --high High depth." in text
    assert "Hours. [default: 1.5] [x>0]" in text


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "2", "x"])
def test_a_number_out_of_range_is_refused(value: str) -> None:
    result = invoke(command, "--share", value)
    assert result.exit_code == 2 and "'--share'" in result.stderr


def commands(repository: Path) -> dict[str, click.Command]:
    setup = ConfigParser()
    setup.read(repository / "setup.cfg")
    listed = re.findall(r"(ikc-\w+) = (\S+):main", setup["options.entry_points"]["console_scripts"])
    return {name: importlib.import_module(module).main for name, module in listed}


def test_every_option_of_every_command_is_a_field_of_a_dataclass(repository: Path) -> None:
    for name, each in commands(repository).items():
        others = [
            parameter.opts[0]
            for parameter in each.params
            if isinstance(parameter, click.Option) and not isinstance(parameter, OptionWithHeading)
        ]
        assert set(others) <= {"--help-all", "--version"}, name
        assert invoke(each, "--version").stdout == f"ikc-deploy {ikc_deploy.__version__}\n"


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_number_that_must_be_positive_is(value: str) -> None:
    result = invoke(command, "--hours", value)
    assert result.exit_code == 2 and "'--hours'" in result.stderr
    with pytest.raises(InputError):
        Work(hours=float(value))


def test_no_option_of_any_command_takes_a_number_of_more_than_64_bits(repository: Path) -> None:
    for name, each in commands(repository).items():
        for parameter in each.params:
            if isinstance(parameter.type, IntParamType):
                assert isinstance(parameter.type, WholeNumber | WholeRange), (name, parameter.name)
    result = invoke(command, "--max-side", 2**63)
    assert result.exit_code == 2 and "more than 64 bits" in result.stderr
    with pytest.raises(InputError, match="at most"):
        Work(size=Size(2**63))


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


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--scale=2", "no option --scale: the scale is that of the weights"),
        ("-i", "ikc-upscale INPUT -o OUT"),
        ("--tta", "--self-ensemble"),
    ],
)
def test_options_of_similar_programs_have_a_hint(option: str, words: str) -> None:
    assert_one_clear_line(invoke(upscale, "in.png", option, "-o", "out.png"), words)


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
