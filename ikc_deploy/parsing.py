"""Untrusted JSON and TOML as plain values; `ikc_deploy.typed_values` gives them types."""

from __future__ import annotations

import json
import math
import tomllib
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.text import printable
from ikc_deploy.typed_values import SettingError

DEEPEST: Final = 32
"""Maximum nesting of the lists and objects of JSON."""

MAX_INT: Final = 2**63 - 1
"""Maximum absolute value of an integer of JSON."""

MAX_TOML_BYTES: Final = 1 << 20
"""Maximum size in bytes of a TOML file, a hundred times the longest one in this project."""

_SHOWN: Final = 60


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
