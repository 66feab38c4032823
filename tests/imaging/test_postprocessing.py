from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy import InputError, Postprocessing
from ikc_deploy.imaging.resize import upscale_bicubic
from tests.samples import photo

SIDES = st.integers(1, 4000)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_size_is_filled_on_one_side_with_the_aspect_kept(
    height: int, width: int, box_height: int, box_width: int
) -> None:
    try:
        found = Postprocessing(size=(box_width, box_height)).output_size(height, width, 4)
    except InputError as error:
        assert "is impossible" in str(error)
        assert min(box_height * width, box_width * height) <= max(height, width) / 2
        return
    assert found[0] == box_height or found[1] == box_width
    assert found[0] <= box_height and found[1] <= box_width
    factor = min(box_height / height, box_width / width)
    assert abs(found[0] - factor * height) <= 0.5 and abs(found[1] - factor * width) <= 0.5


@pytest.mark.parametrize(
    ("settings", "even", "expected"),
    [
        ({}, True, (400, 600)),
        ({"factor": 2.5}, False, (250, 375)),
        ({"factor": 2.5}, True, (250, 376)),
        ({"width": 75}, False, (50, 75)),
        ({"height": 51}, False, (51, 76)),
        ({"width": 300, "height": 300}, False, (200, 300)),
        ({"size": (300, 301), "stretch": True}, False, (301, 300)),
        ({"size": (301, 301)}, True, (200, 300)),
    ],
)
def test_sizes_of_an_input_of_150x100(
    settings: dict[str, Any], even: bool, expected: tuple[int, int]
) -> None:
    assert Postprocessing(**settings).output_size(100, 150, 4, even=even) == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": (8, 8), "factor": 2.0}, "--size and --factor both give the output size"),
        ({"width": 8, "factor": 2.0}, "--width and --factor"),
        ({"size": (0, 8)}, "invalid output size 0x8"),
        ({"size": "1920x1080"}, "size must be 2 whole numbers, got '1920x1080'"),
        ({"size": (8,)}, "size must be 2 whole numbers"),
        ({"stretch": True, "width": 8}, "needs both sides"),
        ({"strength": 1.5}, "strength"),
        ({"factor": 0.0}, "factor"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Postprocessing(**settings)


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_strength_is_linear_between_bicubic_and_the_network(strength: float) -> None:
    lr, sr = photo(24, 30), photo(96, 120, seed=1)
    image = Postprocessing(strength=strength)(lr, sr).astype(float)
    inner = (slice(8, -8), slice(8, -8))  # libraries differ beyond the border
    plain = upscale_bicubic(lr, 4).astype(float)
    expected = strength * sr + (1 - strength) * plain
    assert np.abs(image - expected)[inner].max() <= 1.5


def test_shrinking_does_not_alias_and_keeps_the_mean() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (96, 60))
    sr = np.dstack([stripes] * 3)
    image = Postprocessing(factor=1.0)(sr[::4, ::4], sr)
    assert image.shape == (24, 30, 3)
    assert np.abs(image[:, 2:-2].astype(float) - 127.5).max() <= 3


def test_a_resized_image_is_close_to_the_original_size() -> None:
    lr, sr = photo(24, 30), np.kron(photo(24, 30), np.ones((4, 4, 1))).astype(np.uint8)
    image = Postprocessing(size=(60, 48))(lr, sr)
    expected = np.kron(lr, np.ones((2, 2, 1))).astype(np.uint8)
    error = np.mean((expected.astype(float) - image) ** 2)
    assert 10 * np.log10(255**2 / error) > 20


def test_a_preview_has_the_bicubic_half_on_the_left() -> None:
    lr, sr = photo(24, 30), photo(96, 120, seed=1)
    image = Postprocessing(preview=True)(lr, sr)
    np.testing.assert_array_equal(image[:, 60:], sr[:, 60:])
    assert (image[:, 58:60] == 255).all()
    np.testing.assert_allclose(
        image[8:-8, 8:58].astype(int), upscale_bicubic(lr, 4)[8:-8, 8:58].astype(int), atol=1
    )
