"""Settings from TOML or JSON files, checked against the types of a dataclass.

A dataclass of settings specifies types in its annotations and ranges in `__post_init__`. This
module checks the values of a file against the annotations, so that `__post_init__` receives only
finite values of the right type.
"""

from __future__ import annotations

import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ikc_deploy.text import shown

MAX_TOML_BYTES: Final = 1 << 20
"""Maximum size in bytes of a file, a hundred times the longest one in this project."""

_Settings = TypeVar("_Settings")
_WORDS: Final = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
}


class SettingError(ValueError):
    """Unreadable settings, or a setting of the wrong type; callers raise their own error for it."""


def read_toml(path: str | PathLike[str], what: str) -> dict[str, Any]:
    """Return the values of a TOML file.

    Args:
        path: The file.
        what: Kind of the file for messages, for example "recipe".

    Returns:
        The top-level table.

    Raises:
        SettingError: The file is missing, unreadable, larger than `MAX_TOML_BYTES` or not TOML.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TOML_BYTES + 1)
    except FileNotFoundError:
        raise SettingError(f"there is no {what} at '{file}'") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingError(f"the {what} {str(file)!r} cannot be read: {reason}") from error
    if len(content) > MAX_TOML_BYTES:
        raise SettingError(f"'{file}' is not a {what}: it is larger than {MAX_TOML_BYTES} bytes")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise SettingError(f"'{file}' is not valid TOML: {error}") from error


def read_settings(kind: type[_Settings], values: object) -> _Settings:
    """Return settings of the dataclass `kind` from a table of plain values.

    Lists become tuples, and whole numbers become floats where the annotation specifies them.

    Args:
        kind: The dataclass.
        values: A table from `read_toml`, or a dict from JSON.

    Returns:
        An instance of `kind`.

    Raises:
        SettingError: `values` is not a table, a name is unknown or missing, or a value is not of
            its type. The message names the setting, the value and what is allowed.
        Exception: `__post_init__` of `kind` refuses a value.
    """
    if not isinstance(values, dict):
        raise SettingError(f"must be a table, got {shown(values)}")
    hints = get_type_hints(kind)
    known = fields(kind)  # type: ignore[arg-type]
    refuse_unknown(values, {field.name for field in known})
    missing = [
        field.name
        for field in known
        if field.default is MISSING and field.default_factory is MISSING
        if field.name not in values
    ]
    if missing:
        raise SettingError(f"missing settings {', '.join(missing)}")
    return kind(**{name: typed(hints[name], value, name) for name, value in values.items()})


def refuse_unknown(values: Mapping[str, Any], known: set[str]) -> None:
    """Raise `SettingError` if some settings are not `known`; the message names both."""
    unknown = sorted(map(_name, set(values) - known))
    if unknown:
        raise SettingError(
            f"unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def typed(hint: Any, value: object, name: str) -> Any:
    """Return `value` converted to the type of an annotation.

    Args:
        hint: int, float, str, bool, Literal, a tuple, a dataclass, or a union of one with None.
        value: A value of TOML or JSON.
        name: Name of the setting, for the message.

    Returns:
        The value; lists as tuples, tables as dataclasses.

    Raises:
        SettingError: The value is of another type, or a number is not finite.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (hint,) = (choice for choice in arguments if choice is not type(None))
        return typed(hint, value, name)
    if is_dataclass(hint) and isinstance(hint, type):
        try:
            return read_settings(hint, value)
        except SettingError as error:
            raise SettingError(f"{name}: {error}") from None
    if origin is tuple and isinstance(value, list | tuple):
        each = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(each) == len(value):
            pairs = enumerate(zip(each, value, strict=True))
            return tuple(typed(part, entry, f"{name}[{i}]") for i, (part, entry) in pairs)
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if hint is float and type(value) in (int, float) and _is_finite(value):
        return float(value)  # type: ignore[arg-type]
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise SettingError(f"{name} must be {_allowed(hint)}, got {shown(value)}")


def _name(key: str) -> str:
    return key if key.isprintable() and len(key) <= 60 else shown(key)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _allowed(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each entry {_allowed(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}, each {_allowed(arguments[0])}"
    return _WORDS.get(hint, "a table")
