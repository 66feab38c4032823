"""Types of the values of command-line options."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import click
from click.types import FloatParamType, IntParamType

from ikc_deploy.cli._command import CommandError
from ikc_deploy.errors import OutputError
from ikc_deploy.files import check_file
from ikc_deploy.option_fields import MAX_INT
from ikc_deploy.runtime.tiling import Tile


class _Finite(click.ParamType):  # type: ignore[type-arg]
    """The check of a float. click's own types accept inf, and nan in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number!r} is not a finite number.", param, ctx)
        return number


class FiniteNumber(_Finite, FloatParamType):
    """A finite number."""


class FiniteRange(_Finite, click.FloatRange):
    """A finite number in a range."""


class _Bounded(click.ParamType):  # type: ignore[type-arg]
    """The check of an integer. click's own types accept any size, which libraries refuse."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if abs(number) > MAX_INT:
            self.fail(f"{number} has more than 64 bits.", param, ctx)
        return number


class WholeNumber(_Bounded, IntParamType):
    """A whole number of 64 bits."""


class WholeRange(_Bounded, click.IntRange):
    """A whole number of 64 bits in a range."""


class WrittenValue(click.ParamType):  # type: ignore[type-arg]
    """A value with a written form of its own.

    Args:
        name: What the value is, for messages.
        read: Function from the text to the value; raises `ValueError` if it is invalid.
        expected: Examples for the message.
    """

    def __init__(self, name: str, read: Callable[[str], Any], expected: str) -> None:
        self.name = name
        self._read = read
        self._expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value; fail with a usage error if it is invalid."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value.strip())
        except (ValueError, ZeroDivisionError):
            self.fail(f"invalid {self.name} '{value}': expected {self._expected}", param, ctx)


class _NamedPath(click.Path):
    """A path that is not empty: an empty one is the working folder, and usually a mistake."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if value == "":
            self.fail("the name is empty; give a file or folder (. is this folder)", param, ctx)
        return super().convert(value, param, ctx)


class _OutputFile(_NamedPath):
    """A path that is refused before the command runs if no file can be written there.

    `-` is not checked; the command interprets it.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        path: Any = super().convert(value, param, ctx)
        if str(path) != "-":
            try:
                check_file(path)
            except OutputError as error:
                raise CommandError(str(error)) from error
        return path


def _matched(pattern: str, text: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE)
    if found is None:
        raise ValueError(text)
    return found


# Digits are bounded, so that no number is too long for Python to convert.
_NUMBER: Final = r"\d{1,9}(?:\.\d{1,9})?"


def _tile(text: str) -> Tile:
    if text.lower() in ("auto", "none"):
        return "auto" if text.lower() == "auto" else None
    return int(_matched(r"\d{1,9}", text)[0])


def _bytes(text: str) -> int:
    size = _matched(rf"({_NUMBER})([KMG]?)I?B?", text)
    return int(Fraction(size[1]) * 1024 ** " KMG".index(size[2].upper() or " "))


def _pixels(text: str) -> int | None:
    if text.lower() == "none":
        return None
    count = _matched(rf"({_NUMBER})([KMG]?)", text)
    pixels = round(Fraction(count[1]) * 1000 ** " KMG".index(count[2].upper() or " "))
    if not pixels:
        raise ValueError(text)
    return pixels


def _seconds(text: str) -> Fraction:
    clock = _matched(rf"(?:(?:(\d{{1,9}}):)?(\d{{1,9}}):)?({_NUMBER})", text)
    return 3600 * int(clock[1] or 0) + 60 * int(clock[2] or 0) + Fraction(clock[3])


def _sides(text: str) -> tuple[int, int]:
    sides = _matched(r"(\d{1,5})x(\d{1,5})", text)
    return int(sides[1]), int(sides[2])


def _rate(text: str) -> Fraction:
    return Fraction(_matched(rf"-?(?:{_NUMBER}|\d{{1,9}}/\d{{1,9}})", text)[0])


PATH: Final = _NamedPath(path_type=Path)
"""A file or folder."""

OUTPUT_FILE: Final = _OutputFile(path_type=Path)
"""A file to write."""

TILE: Final = WrittenValue("tile", _tile, "auto, none or a side, for example 256")
BYTES: Final = WrittenValue("size", _bytes, "for example 800M or 4G")
PIXELS: Final = WrittenValue("number of pixels", _pixels, "for example 200M, or none")
TIME: Final = WrittenValue("time", _seconds, "for example 90, 1:30 or 0:01:30.5")
WIDTH_HEIGHT: Final = WrittenValue("size", _sides, "WIDTHxHEIGHT, for example 640x360")
HEIGHT_WIDTH: Final = WrittenValue("size", _sides, "HEIGHTxWIDTH, for example 128x128")
RATE: Final = WrittenValue("rate", _rate, "for example 25 or 30000/1001")
