"""Fields of options: their help and range, stated once beside name, type and default.

    @dataclass(frozen=True)
    class TimeOptions:
        minutes: Annotated[float, Option("Time limit in minutes.", minimum=0)] = 10.0

        def __post_init__(self) -> None:
            check_options(self)

Callers of the API get an `InputError` for a wrong type or a value out of range. The commands make
their options from the same fields (`ikc_deploy.cli._option_group`).
"""

from __future__ import annotations

import math
import types
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ikc_deploy.arguments import is_whole, real_number, whole_number
from ikc_deploy.errors import InputError
from ikc_deploy.text import shown

Heading = Literal["", "Blur", "Output", "Video", "Speed and memory", "Distributed"]
"""Heading of an option in the help of a command with many options, in order."""

MAX_INT: Final = 2**63 - 1
"""Largest absolute value of a whole number: libraries take no larger ones."""


@dataclass(frozen=True)
class Option:
    """Annotation of a field that is an option."""

    help: str
    """Description, which ends with a full stop."""
    default: str = ""
    """Default in words, where the value does not say it: the meaning of None, for example."""
    minimum: float | None = None
    """Minimum of a number; None for none."""
    maximum: float | None = None
    """Maximum of a number; None for none."""
    positive: bool = False
    """Whether a number must be greater than 0."""
    heading: Heading = ""
    """Heading of the option in the help of a command; empty for the most used ones."""
    flags: tuple[str, ...] = ()
    """Names on the command line; empty for that of the field, `--max-memory` for max_memory."""
    metavar: str | None = None
    """Placeholder of the value in the help; None for that of the type."""
    alone: str | None = None
    """Value of an option that may be given without one; None if it needs a value."""
    switches: tuple[tuple[str, str], ...] = ()
    """For a choice with a flag for each value (`--fp16` for "fp16"): the values and their help."""


@dataclass(frozen=True)
class OptionField:
    """An option of a dataclass, with all that its field states."""

    name: str
    """Name of the field."""
    kind: Any
    """Type of the value, without None."""
    optional: bool
    """Whether None is allowed."""
    default: Any
    """Default value; `dataclasses.MISSING` for none."""
    option: Option
    """Help and range."""


def option_fields(kind: type) -> dict[str, OptionField]:
    """Return the options of a dataclass by name, in order; other fields are left out."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        if get_origin(hints[field.name]) is Annotated:
            hint, *notes = get_args(hints[field.name])
            option = next(note for note in notes if isinstance(note, Option))
            plain, optional = _without_none(hint)
            found[field.name] = OptionField(field.name, plain, optional, field.default, option)
    return found


def nested_options(kind: type) -> dict[str, type]:
    """Return the fields of a dataclass that are options dataclasses themselves."""
    hints = get_type_hints(kind)
    return {
        field.name: hints[field.name]
        for field in fields(kind)
        if isinstance(hints[field.name], type) and is_dataclass(hints[field.name])
    }


def changed_options(options: object) -> dict[str, Any]:
    """Return the values of an options dataclass that differ from their defaults, by field."""
    return {
        field.name: value
        for field in option_fields(type(options)).values()
        if (value := getattr(options, field.name)) != field.default
    }


def check_options(options: object) -> None:
    """Check the values of an options dataclass by their types and ranges.

    Numbers, pairs of whole numbers, Literals and booleans are checked; None is accepted where the
    type allows it.

    Raises:
        InputError: A value is of the wrong type or out of range.
    """
    for field in option_fields(type(options)).values():
        value = getattr(options, field.name)
        if not (value is None and field.optional):
            _check(value, field)


def _check(value: object, field: OptionField) -> None:
    name, low, high = field.name, field.option.minimum, field.option.maximum
    if field.kind is int:
        number = whole_number(value, name, -MAX_INT if low is None else math.ceil(low))
        most = MAX_INT if high is None else math.floor(high)
        if number > most:
            raise InputError(f"{name} must be a whole number of at most {most}, got {number}")
    elif field.kind is float:
        real_number(
            value, name, -math.inf if low is None else low, math.inf if high is None else high
        )
        if field.option.positive and not value > 0:  # type: ignore[operator]
            raise InputError(f"{name} must be greater than 0, got {shown(value)}")
    elif field.kind is bool:
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{name} must be True or False, got {shown(value)}")
    elif get_origin(field.kind) is Literal:
        choices = get_args(field.kind)
        if not isinstance(value, str) or value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}, got {shown(value)}")
    elif get_origin(field.kind) is tuple and set(get_args(field.kind)) == {int}:
        count = len(get_args(field.kind))
        whole = isinstance(value, tuple | list) and all(is_whole(each, -MAX_INT) for each in value)
        if not whole or len(value) != count:  # type: ignore[arg-type]
            raise InputError(f"{name} must be {count} whole numbers, got {shown(value)}")


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether it included None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    kinds = tuple(kind for kind in get_args(hint) if kind is not type(None))
    return Union[kinds], len(kinds) < len(get_args(hint))  # noqa: UP007 - made at run time
