"""Untrusted JSON as typed, bounded records.

`read_json` decodes bytes and refuses JSON that this package never writes. `parse` creates a
dataclass from the values by its annotations, and refuses every other name, type and range. Both
raise only `ValueError`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ikc_deploy.errors import IkcError
from ikc_deploy.text import printable

DEEPEST: Final = 32
"""Maximum nesting of lists and objects."""

MAX_INT: Final = 2**63 - 1
"""Maximum absolute value of an integer."""

LONGEST_STRING: Final = 1024
"""Maximum number of characters of a string in a typed record."""

MAX_ENTRIES: Final = 10_000
"""Maximum number of entries of a list or an object in a typed record."""

_SHOWN: Final = 60

_Record = TypeVar("_Record")


def read_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Args:
        data: The encoded text.

    Returns:
        Dicts, lists, strings, numbers, booleans and None.

    Raises:
        ValueError: The text is not valid JSON in UTF-8, an object has a name twice, a number is not
            finite or beyond `MAX_INT`, a string has a lone surrogate, or nesting is deeper than
            `DEEPEST`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_not_finite,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    _check_tree(value)
    return value


def parse(kind: type[_Record], value: Any, name: str = "") -> _Record:
    """Return a dataclass created from JSON values.

    Annotations may be `bool`, `int`, `float`, `str`, `Any`, literals, `dict[str, X]`, `list[X]`,
    tuples, dataclasses, and unions with None. Strings must be printable.

    Args:
        kind: The dataclass.
        value: A value from `read_json`.
        name: Path of the value in the JSON document, for messages.

    Returns:
        An instance of `kind`.

    Raises:
        ValueError: An entry is missing, unknown, of another type, or refused by the dataclass. The
            message names the first one.
    """
    return cast(_Record, _parsed(kind, value, name))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name '{printable(twice, _SHOWN)}' comes twice in an object")
    return found


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is not a valid JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {printable(text, _SHOWN)} is too large")
    return value


def _int(text: str) -> int:
    # Do not convert long texts: Python refuses very long ones with another message.
    value = int(text) if len(text) < 20 else MAX_INT + 1
    if abs(value) > MAX_INT:
        raise ValueError(f"the number {printable(text, _SHOWN)} is too large")
    return value


def _check_tree(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        texts = [item for item in level if isinstance(item, str)]
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                texts += item
                inside += item.values()
            elif isinstance(item, list):
                inside += item
        for text in texts:
            if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
                raise ValueError(f"'{printable(text, _SHOWN)}' is not valid Unicode")
        if not inside:
            return
        level = inside
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def _parsed(kind: Any, value: Any, name: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _optional(inner, value, name)
    if origin is Literal:
        return _one_of(inner, value, name)
    if origin is dict:
        return _dict(inner[1], value, name)
    if origin in (list, tuple):
        return _sequence(origin, inner, value, name)
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast(type, kind), value, name)
    return _scalar(kind, value, name)


def _optional(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    (kind,) = (each for each in kinds if each is not type(None))
    return _parsed(kind, value, name)


def _one_of(choices: tuple[Any, ...], value: Any, name: str) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise _other(f"one of {', '.join(choices)}", value, name)
    return value


def _dict(kind: Any, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _other("an object", value, name)
    _check_count(value, name)
    return {
        _scalar(str, key, f"a name in {name}"): _parsed(kind, each, f"{name}.{printable(key, 40)}")
        for key, each in value.items()
    }


def _sequence(origin: type, kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _other("a list", value, name)
    _check_count(value, name)
    if origin is tuple and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise _other(f"{len(kinds)} values", value, name)
    else:
        kinds = (kinds[0],) * len(value)
    entries = zip(kinds, value, strict=True)
    return origin(_parsed(kind, each, f"{name}[{i}]") for i, (kind, each) in enumerate(entries))


def _dataclass(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _other("an object", value, name)
    hints, required = _fields(kind)
    missing, unknown = sorted(required - set(value)), sorted(set(value) - set(hints))
    if missing:
        raise ValueError(f"{_where(name)}lacks {', '.join(missing)}")
    if unknown:
        raise ValueError(f"{_where(name)}has an unknown entry '{printable(unknown[0], _SHOWN)}'")
    inside = f"{name}." if name else ""
    values = {key: _parsed(hints[key], each, f"{inside}{key}") for key, each in value.items()}
    try:
        return kind(**values)
    except (IkcError, ValueError) as error:
        raise ValueError(f"{_where(name)}is invalid: {error}") from error


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the annotation of each field, and the names of the fields without a default."""
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    none = dataclasses.MISSING
    required = (f.name for f in fields if f.default is none and f.default_factory is none)
    return {field.name: hints[field.name] for field in fields}, frozenset(required)


def _scalar(kind: Any, value: Any, name: str) -> Any:
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _other("a number", value, name)
        return float(value)
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _other("a whole number", value, name)
    elif kind is bool:
        if not isinstance(value, bool):
            raise _other("true or false", value, name)
    elif kind is str:
        if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_STRING:
            raise _other(f"printable text of at most {LONGEST_STRING} characters", value, name)
    else:
        raise TypeError(f"unsupported annotation {kind}")
    return value


def _check_count(value: Any, name: str) -> None:
    if len(value) > MAX_ENTRIES:
        raise ValueError(f"{name} has {len(value)} entries, more than {MAX_ENTRIES}")


def _where(name: str) -> str:
    return f"{name} " if name else "it "


def _other(wanted: str, value: Any, name: str) -> ValueError:
    return ValueError(f"{_where(name)}must be {wanted}, got {printable(repr(value), _SHOWN)}")
