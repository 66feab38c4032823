"""Text for messages: values and untrusted names, safe to print on a terminal."""

from __future__ import annotations

import reprlib
from typing import Final

_MAX: Final = 200
_MAX_SHOWN: Final = 60


def printable(text: object, most: int = _MAX) -> str:
    """Return `text` on one line, without control sequences for a terminal.

    Characters that are not printable (control and format characters, line breaks, and lone
    surrogates, which represent bytes of a file name that are not UTF-8) are escaped as in a Python
    string.

    Args:
        text: Any value; its `str` is used.
        most: Maximum number of characters before escaping; longer text is cut and ends with "...".

    Returns:
        The printable text.
    """
    whole = str(text)
    cut = whole if len(whole) <= most else whole[:most] + "..."
    return "".join(char if char.isprintable() else _escaped(char) for char in cut)


def escape_controls(text: str) -> str:
    """Return a message of any length with control characters as escapes, except line ends.

    Unlike `printable`, it keeps lone surrogates, so that a stream can write the bytes of a file
    name as they are.
    """
    return "".join(
        char if char == "\n" or not _is_control(char) else _escaped(char) for char in text
    )


def shown(value: object) -> str:
    """Return how messages show a value: on one line, escaped, and cut if it is long.

    Arrays are shown by dtype and shape.
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        if shape != () or not hasattr(value, "item"):
            return f"{dtype} of shape {list(shape)}"
        value = value.item()
    brief = reprlib.Repr()
    brief.maxlevel = 2
    brief.maxstring = brief.maxother = brief.maxlong = _MAX_SHOWN
    try:
        return printable(brief.repr(value), _MAX)
    except ValueError:  # an int with more digits than Python converts to text
        return type(value).__name__


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
