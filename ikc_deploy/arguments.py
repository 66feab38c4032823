"""Validation of arguments from callers, with one-sentence messages."""

from __future__ import annotations

from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.text import shown


def whole_number(value: object, name: str, least: int, hint: str = "") -> int:
    """Return `value` as an int.

    Args:
        value: An integer of Python or numpy; True and 2.0 are refused.
        name: Name of the argument, for the message.
        least: Minimum.
        hint: Text after the minimum in the message.

    Returns:
        The integer.

    Raises:
        InputError: `value` is not a whole number of at least `least`.
    """
    if not is_whole(value, least):
        raise InputError(
            f"{name} must be a whole number of at least {least}{hint}, got {shown(value)}"
        )
    return int(value)  # type: ignore[call-overload]


def path_argument(value: object, name: str, error: type[IkcError] = InputError) -> Path:
    """Return `value` as a path; integers are refused, which `open` treats as file descriptors.

    Args:
        value: A str or a path.
        name: Name of the argument, for the message.
        error: Class of the exception.

    Returns:
        The path.

    Raises:
        IkcError: `value` is neither, or contains a NUL character; the class is `error`.
    """
    try:
        if isinstance(value, str | PathLike) and "\0" not in str(path := Path(value)):
            return path
    except TypeError:  # a PathLike of bytes
        pass
    raise error(f"{name} must be a str or a path, got {shown(value)}")


def is_whole(value: object, least: int) -> bool:
    """Return whether `value` is an integer of at least `least`; False for True and 2.0."""
    whole = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    return whole and value >= least  # type: ignore[operator]


def real_number(value: object, name: str, low: float, high: float, unit: str = "") -> float:
    """Return `value` as a float.

    Args:
        value: A real number of Python or numpy; True and NaN are refused.
        name: Name of the argument, for the message.
        low: Minimum.
        high: Maximum.
        unit: Unit after the range in the message, with a leading space.

    Returns:
        The float.

    Raises:
        InputError: `value` is not a number in [`low`, `high`].
    """
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if not number or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise InputError(f"{name} must lie in [{low:g}, {high:g}]{unit}, got {shown(value)}")
    return float(value)  # type: ignore[arg-type]


def real_array(
    value: Any, name: str, error: type[IkcError] = InputError, finite: bool = True
) -> NDArray[np.float64]:
    """Return numbers of any shape as a new float64 array.

    Args:
        value: A number, nested numbers, or an array in host memory.
        name: Name of the argument, for the message.
        error: Class of the exception.
        finite: Whether NaN and infinity are refused.

    Returns:
        float64 of the same shape.

    Raises:
        IkcError: `value` is empty, not real numbers, or not finite; the class is `error`.
    """
    try:
        array = np.asarray(value)
    except Exception as caught:  # arrays of other libraries on a device, or ragged ones, raise any
        raise error(f"{name} must be numbers in host memory, got {shown(value)}") from caught
    if array.dtype.kind not in "fiu":
        raise error(f"{name} must be real numbers, got {shown(value)}")
    if array.size == 0:
        raise error(f"{name} must not be empty, got {shown(value)}")
    numbers = array.astype(np.float64)
    if finite and not np.all(np.isfinite(numbers)):
        raise error(f"{name} must be finite, got {shown(value)}")
    return numbers
