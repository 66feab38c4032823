"""Arguments from outside that should be numbers: checked once, and refused in one sentence."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import IkcError, InputError


def whole_number(value: object, name: str, least: int, hint: str = "") -> int:
    """`value` as an int. Raises `InputError` unless it is a whole number of at least `least`.

    Python's and numpy's integers are taken, True and 2.0 are not; `hint` comes after the bound.
    """
    if not is_whole(value, least):
        raise InputError(
            f"{name} must be a whole number of at least {least}{hint}, got {shown(value)}"
        )
    return int(value)  # type: ignore[call-overload]


def is_whole(value: object, least: int) -> bool:
    """Whether `value` is a whole number of at least `least`; True and 2.0 are none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    return whole and value >= least  # type: ignore[operator]


def real_number(value: object, name: str, low: float, high: float, unit: str = "") -> float:
    """`value` as a float. Raises `InputError` unless it is a number in [`low`, `high`]."""
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if not number or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise InputError(f"{name} must lie in [{low:g}, {high:g}]{unit}, got {shown(value)}")
    return float(value)  # type: ignore[arg-type]


def real_array(
    value: Any, name: str, error: type[IkcError] = InputError, finite: bool = True
) -> NDArray[np.float64]:
    """`value`, a number or nested numbers of any shape, as float64.

    Raises `error` for anything else, and, if they have to be `finite`, for NaN and infinity.
    """
    try:
        array = np.asarray(value)
    except Exception as caught:  # whatever a foreign array raises that is elsewhere or ragged
        raise error(f"{name} must be numbers in host memory, got {shown(value)}") from caught
    if array.dtype.kind not in "fiu":
        raise error(f"{name} must be real numbers, got {shown(value)}")
    if array.size == 0:
        raise error(f"{name} must not be empty, got {shown(value)}")
    numbers = array.astype(np.float64)
    if finite and not np.all(np.isfinite(numbers)):
        raise error(f"{name} must be finite, got {shown(value)}")
    return numbers


def shown(value: object) -> str:
    """What to say that a value is: itself if that is short, else its type and shape."""
    if isinstance(value, str | int | float | type(None)) and len(repr(value)) <= 60:
        return repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        text = repr(value.item()) if shape == () and hasattr(value, "item") else ""
        return text or f"{dtype} of shape {list(shape)}"
    text = repr(value)
    return text if len(text) <= 60 else type(value).__name__
