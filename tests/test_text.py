from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.text import escape_controls, printable, shown

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(VALUES)
def test_any_value_is_shown_on_one_short_printable_line(value: Any) -> None:
    text = shown(value)
    assert text and text.isprintable() and len(text) <= 203
    if type(value) in (int, bool, type(None)):
        assert text == repr(value) or "..." in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5, "2.5"),
        ("7", "'7'"),
        (float("nan"), "nan"),
        (np.int64(3), "3"),
        (np.zeros((2, 3), np.uint8), "uint8 of shape [2, 3]"),
        ([1, 2, 3, 4, 5, 6, 7], "[1, 2, 3, 4, 5, 6, ...]"),
        ("a" * 61, f"'{'a' * 27}...{'a' * 28}'"),
        ("\x1b[31m", r"'\x1b[31m'"),
    ],
)
def test_values_are_shown_as_in_python(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_number_too_long_for_python_is_shown_by_its_type() -> None:
    assert shown(-(10**5000)) == "int"
    assert shown([10**5000]) == "list"


@given(st.text())
def test_names_and_messages_send_no_control_characters(text: str) -> None:
    assert printable(text).isprintable()
    kept = escape_controls(text).replace("\n", "")
    assert not any(char < " " or "\x7f" <= char < "\xa0" for char in kept)
