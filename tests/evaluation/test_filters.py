from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ikc_deploy.errors import MissingExtraError
from ikc_deploy.evaluation.filters import FILTERS, bilateral, diffuse, median
from tests.samples import photo

HR = photo(24, 30)


def windows(image: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """The `side * side` pixels around every pixel, `[H,W,3,side,side]`, the border reflected."""
    reach = side // 2
    padded = np.pad(image.astype(np.float64), ((reach,) * 2, (reach,) * 2, (0, 0)), "reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))


@pytest.mark.parametrize(("scale", "side"), [(2, 3), (3, 3), (4, 5)])
def test_the_median_is_that_of_the_pixels_around(scale: int, side: int) -> None:
    expected = np.median(windows(HR, side), axis=(-2, -1))
    np.testing.assert_array_equal(median(HR, scale), expected)


@pytest.mark.parametrize(("scale", "side"), [(2, 7), (4, 13)])
def test_bilateral_is_the_mean_weighted_by_both_distances(scale: int, side: int) -> None:
    around = windows(HR, side)
    y, x = np.mgrid[:side, :side] - side // 2
    near = np.exp(-(x * x + y * y) / (2 * (scale / 2) ** 2))
    distance = np.square(around - HR[..., None, None]).sum(axis=2)
    weights = near * np.exp(-distance / (2 * 25.0**2))
    expected = (around * weights[:, :, None]).sum(axis=(-2, -1))
    expected /= weights.sum(axis=(-2, -1))[..., None]
    np.testing.assert_allclose(bilateral(HR, scale), expected)


@pytest.mark.parametrize(("scale", "steps"), [(2, 2), (3, 6), (4, 10)])
def test_diffusion_is_perona_and_maliks_sum_over_neighbours(scale: int, steps: int) -> None:
    image = HR.astype(np.float64)
    for _ in range(steps):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), "edge")
        neighbours = [np.roll(padded, shift, axis) for axis in (0, 1) for shift in (1, -1)]
        towards = [each[1:-1, 1:-1] - image for each in neighbours]
        image = image + 0.2 * sum(each * np.exp(-((each / 15.0) ** 2)) for each in towards)
    np.testing.assert_allclose(diffuse(HR, scale), image, atol=1e-9)


def test_diffusion_blurs_like_a_gaussian_but_keeps_edges() -> None:
    faint = 100 + np.rint(HR / 64).astype(np.uint8)
    blurred = ndimage.gaussian_filter(faint.astype(np.float64), (2, 2, 0), mode="reflect")
    assert np.abs(diffuse(faint, 4) - blurred).max() < 0.15 * np.ptp(faint)
    edge = np.zeros((24, 24, 3), np.uint8)
    edge[:, 12:] = 100
    assert np.abs(diffuse(edge, 4) - edge).max() < 0.1


@pytest.mark.parametrize("name", FILTERS)
def test_a_flat_image_stays_as_it_is(name: str) -> None:
    flat = np.full((16, 16, 3), 77, np.uint8)
    found = FILTERS[name](flat, 2)  # type: ignore[index]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, flat)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(MissingExtraError, match=r"ikc-deploy\[evaluation\]"):
        median(HR, 2)
