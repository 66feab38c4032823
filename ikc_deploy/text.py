"""Escaping of untrusted text for printing."""

from __future__ import annotations

from typing import Final

_MAX: Final = 200


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
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in cut
    )
