from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from ikc_deploy.errors import InputError
from ikc_deploy.option_fields import (
    Option,
    changed_options,
    check_options,
    nested_options,
    option_fields,
)


@dataclass(frozen=True)
class Inner:
    depth: Annotated[int, Option("Depth.", minimum=1, maximum=9)] = 3


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, Option("Name.")]
    weight: Annotated[float, Option("Weight.", minimum=0)] = 0.5
    count: Annotated[int | None, Option("Count.")] = None
    mode: Annotated[Literal["a", "b"], Option("Mode.")] = "a"
    fast: Annotated[bool, Option("Fast.")] = False
    plain: int = 0
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        check_options(self)


def test_fields_state_type_default_and_help() -> None:
    found = option_fields(Outer)
    assert list(found) == ["name", "weight", "count", "mode", "fast"]
    assert (found["count"].kind, found["count"].optional, found["count"].default) == (
        int,
        True,
        None,
    )
    assert found["mode"].kind == Literal["a", "b"] and not found["mode"].optional
    assert found["weight"].option.help == "Weight."
    assert nested_options(Outer) == {"inner": Inner}


def test_changed_options_are_those_that_differ_from_their_defaults() -> None:
    changed = changed_options(Outer("x", weight=0.5, count=2, plain=3))
    assert changed == {"name": "x", "count": 2}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"weight": -1.0}, "weight must lie in"),
        ({"weight": float("nan")}, "weight must lie in"),
        ({"weight": "1"}, "weight must lie in"),
        ({"count": 1.5}, "count must be a whole number"),
        ({"mode": "c"}, "mode must be one of a, b, got 'c'"),
        ({"mode": None}, "mode must be one of"),
        ({"fast": 1}, "fast must be True or False, got 1"),
    ],
)
def test_values_of_another_type_or_range_are_refused(value: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Outer("x", **value)


def test_values_in_range_are_taken() -> None:
    assert Outer("x", weight=2, count=-5, mode="b", fast=True).count == -5
    check_options(Inner(9))
    for depth in (0, 10, True, 2.0):
        with pytest.raises(InputError, match="depth must be a whole number"):
            check_options(Inner(depth))  # type: ignore[arg-type]
