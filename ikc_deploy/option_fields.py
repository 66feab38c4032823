"""Option fields of dataclasses, which declare name, type, default, range and help in one place.

    @dataclass(frozen=True)
    class TimeOptions:
        minutes: Annotated[float, Option("Time limit in minutes.", minimum=0)] = 10.0

        def __post_init__(self) -> None:
            check_options(self)

The API raises an `InputError` for a wrong type or a value out of range. The options of the commands
are generated from the same fields (`ikc_deploy.cli._option_group`).
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
"""Maximum absolute value of a whole number; libraries do not support larger ones."""


@dataclass(frozen=True)
class Option:
    """Annotation that makes a dataclass field an option."""

    help: str
    """Description, which ends with a full stop."""
    default: str = ""
    """Description of the default, if its value does not explain itself, for example None."""
    minimum: float | None = None
    """Minimum value; None for no limit."""
    maximum: float | None = None
    """Maximum value; None for no limit."""
    positive: bool = False
    """Whether a number must be greater than 0."""
    heading: Heading = ""
    """Heading of the option in the help of a command; empty for the most used ones."""
    flags: tuple[str, ...] = ()
    """Names on the command line; empty to derive it from the field (`--max-memory`)."""
    metavar: str | None = None
    """Placeholder of the value in the help; None for that of the type."""
    alone: str | None = None
    """Value if the option is given without a value; None if a value is required."""
    switches: tuple[tuple[str, str], ...] = ()
    """For a choice with one flag per value (`--fp16` for "fp16"): the values and their help."""


@dataclass(frozen=True)
class OptionField:
    """An option of a dataclass and the declaration of its field."""

    name: str
    """Name of the field."""
    kind: Any
    """Type of the value, without None."""
    optional: bool
    """Whether None is allowed."""
    default: Any
    """Default value; `dataclasses.MISSING` if the option is required."""
    option: Option
    """Help and range."""


def option_fields(kind: type) -> dict[str, OptionField]:
    """Return the options of a dataclass by name, in order, without its other fields."""
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
    """Return the fields of a dataclass that are dataclasses of options."""
    hints = get_type_hints(kind)
    return {
        field.name: hints[field.name]
        for field in fields(kind)
        if isinstance(hints[field.name], type) and is_dataclass(hints[field.name])
    }


def changed_options(options: object) -> dict[str, Any]:
    """Return the values of a dataclass of options that differ from the defaults, by field."""
    return {
        field.name: value
        for field in option_fields(type(options)).values()
        if (value := getattr(options, field.name)) != field.default
    }


def check_options(options: object) -> None:
    """Check the types and ranges of the values in a dataclass of options.

    Numbers, tuples of whole numbers, Literals and booleans are checked; None is accepted if the
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
