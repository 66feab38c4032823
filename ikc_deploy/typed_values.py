"""Plain values of JSON or TOML files as typed, bounded dataclasses.

A dataclass specifies types in its annotations and ranges in `__post_init__`, which receives only
values of the right type. Every refusal is a `SettingError`, whose callers raise their own error.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin
from typing import get_type_hints as type_hints

from ikc_deploy.errors import IkcError
from ikc_deploy.text import printable, shown

LONGEST_TEXT: Final = 1024
"""Maximum number of characters of a text, except for a `PathText`."""

MAX_ENTRIES: Final = 10_000
"""Maximum number of entries of a list or a table."""

PathText = Annotated[str, "path"]
"""Annotation of a text with any characters, as paths have."""

_Settings = TypeVar("_Settings")
_WORDS: Final = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    PathText: "a text",
    bool: "true or false",
}


class SettingError(ValueError):
    """Unreadable settings, or a setting of the wrong type; callers raise their own error for it."""


def read_settings(kind: type[_Settings], values: object, name: str = "") -> _Settings:
    """Return an instance of the dataclass `kind` from a table of plain values.

    Args:
        kind: The dataclass; see `typed` for the annotations of its fields.
        values: A table of TOML, or an object of JSON.
        name: Path of the table in the file, for messages.

    Returns:
        An instance of `kind`.

    Raises:
        SettingError: `values` is not a table, a name is unknown or missing, a value is not of its
            type, or `__post_init__` refuses one. The message names the setting, the value and what
            is allowed.
    """
    where = f"{name}: " if name else ""
    if not isinstance(values, dict):
        raise SettingError(f"{name} must be a table, got {shown(values)}".lstrip())
    hints, required = _fields(cast("type", kind))
    try:
        check_names(values, hints, required)
    except SettingError as error:
        raise SettingError(f"{where}{error}") from None
    inside = f"{name}." if name else ""
    given = {key: typed(hints[key], value, f"{inside}{key}") for key, value in values.items()}
    try:
        return kind(**given)
    except (IkcError, ValueError) as error:
        raise SettingError(f"{name} is invalid: {error}" if name else str(error)) from error


def check_names(
    values: Mapping[str, Any], known: Collection[str], required: Collection[str] = ()
) -> None:
    """Require all `required` settings and no unknown ones.

    Raises:
        SettingError: A setting is unknown or missing; the message names it.
    """
    unknown = sorted(map(_shown_name, set(values) - set(known)))
    if unknown:
        raise SettingError(
            f"unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    missing = [name for name in required if name not in values]
    if missing:
        raise SettingError(f"missing settings {', '.join(missing)}")


def typed(hint: Any, value: object, name: str) -> Any:
    """Return `value` converted to the type of an annotation.

    Args:
        hint: `bool`, `int`, `float`, `str`, `PathText`, `Any`, a literal, `dict[str, X]`,
            `list[X]`, a tuple, a dataclass, or a union of one with None.
        value: A value of TOML or JSON.
        name: Name of the setting, for the message.

    Returns:
        The value; whole numbers as floats and tables as dataclasses where `hint` specifies them.

    Raises:
        SettingError: The value is of another type, a number is not finite, or a text or a list is
            too long.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated and hint != PathText:
        return typed(arguments[0], value, name)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (choice for choice in arguments if choice is not type(None))
        return typed(hint, value, name)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_settings(hint, value, name)
    if isinstance(value, dict | list | tuple) and len(value) > MAX_ENTRIES:
        raise SettingError(f"{name} has {len(value)} entries, more than {MAX_ENTRIES}")
    if origin is dict and isinstance(value, dict):
        return {
            typed(str, key, f"a name in {name}"): typed(
                arguments[1], each, f"{name}.{printable(key, 40)}"
            )
            for key, each in value.items()
        }
    if origin in (list, tuple) and isinstance(value, list | tuple):
        one_kind = origin is list or arguments[-1] is Ellipsis
        hints = arguments[:1] * len(value) if one_kind else arguments
        if len(hints) == len(value):
            pairs = enumerate(zip(hints, value, strict=True))
            return origin(typed(part, entry, f"{name}[{i}]") for i, (part, entry) in pairs)
    if _is_of(hint, value):
        return float(value) if hint is float else value  # type: ignore[arg-type]
    allowed = _allowed(hint)
    if hint is str and type(value) is str:
        allowed = f"printable text of at most {LONGEST_TEXT} characters"
    raise SettingError(f"{name} must be {allowed}, got {shown(value)}")


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the annotation of each field, and the names of the fields without a default."""
    hints = type_hints(kind, include_extras=True)
    fields = dataclasses.fields(kind)
    none = dataclasses.MISSING
    required = (f.name for f in fields if f.default is none and f.default_factory is none)
    return {field.name: hints[field.name] for field in fields}, tuple(required)


def _is_of(hint: Any, value: Any) -> bool:
    """Return whether a value is one of the scalar type `hint`."""
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint is float:
        return type(value) in (int, float) and _is_finite(value)
    if hint is str:
        return type(value) is str and value.isprintable() and len(value) <= LONGEST_TEXT
    if hint == PathText:
        return type(value) is str
    return hint in (int, bool) and type(value) is hint


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown_name(key: str) -> str:
    return key if key.isprintable() and len(key) <= 60 else shown(key)


def _allowed(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"a list, each entry {_allowed(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}, each {_allowed(arguments[0])}"
    return _WORDS.get(hint, "a table")
