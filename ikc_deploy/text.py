"""Text from outside, made fit to be printed."""

from __future__ import annotations

from typing import Final

_MAX: Final = 200


def printable(text: object, most: int = _MAX) -> str:
    """Return `text` on one line, without anything that a terminal obeys.

    What is not printable (control and format characters, line breaks, lone surrogates, which stand
    for bytes of a file's name that are not UTF-8) is escaped as in a Python string; what is longer
    than `most` characters is cut.
    """
    whole = str(text)
    cut = whole if len(whole) <= most else whole[:most] + "..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in cut
    )
