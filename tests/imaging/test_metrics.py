from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from ikc_deploy import gaussian_kernel
from ikc_deploy.errors import InputError
from ikc_deploy.imaging.metrics import MAX_PSNR, kernel_psnr, luma, psnr_y, ssim_y
from tests.samples import photo


def test_luma_is_skimages() -> None:
    image = photo(20, 30)
    np.testing.assert_allclose(luma(image), rgb2ycbcr(image)[:, :, 0], atol=1e-9)
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luma(ends), [[16, 235]])


@given(level=st.integers(0, 200), offset=st.integers(1, 55), border=st.integers(0, 4))
def test_psnr_of_a_uniform_error_follows_from_its_size(
    level: int, offset: int, border: int
) -> None:
    reference = np.full((12, 14, 3), level, np.uint8)
    image = reference + np.uint8(offset)
    # One grey level is 219/255 of a luma level.
    expected = 20 * math.log10(255 / (219 / 255 * offset))
    assert psnr_y(image, reference, border) == pytest.approx(expected, abs=1e-9)


def test_psnr_sees_one_wrong_pixel_inside_the_border_and_none_in_it() -> None:
    reference = photo(20, 24)
    wrong = reference.copy()
    wrong[4, 5] ^= 255
    y = rgb2ycbcr(np.stack((reference[4, 5], wrong[4, 5]))[None])[0, :, 0]
    mean_square = (y[0] - y[1]) ** 2 / (12 * 16)
    expected = 10 * math.log10(255**2 / mean_square)
    assert psnr_y(wrong, reference, 4) == pytest.approx(expected, abs=1e-9)
    assert psnr_y(wrong, reference, 5) == MAX_PSNR


def test_ssim_is_wangs_formula() -> None:
    reference, border = photo(40, 48), 3
    image = np.roll(reference, 1, axis=1)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        # An 11x11 window; only positions where it lies inside the image count.
        return np.asarray(ndimage.gaussian_filter(values, 1.5, radius=5)[5:-5, 5:-5])

    inside = (slice(border, -border), slice(border, -border))
    x, y = luma(image)[inside], luma(reference)[inside]
    variance_x, variance_y = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2
    covariance = mean(x * y) - mean(x) * mean(y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean(x) * mean(y) + c1) / (mean(x) ** 2 + mean(y) ** 2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    expected = float((luminance * structure).mean())
    assert 0.1 < expected < 0.95
    assert ssim_y(image, reference, border) == pytest.approx(expected, abs=1e-6)
    assert ssim_y(reference, reference, border) == pytest.approx(1, abs=1e-12)


def test_images_of_different_size_are_not_compared() -> None:
    with pytest.raises(InputError, match=r"\(8, 8, 3\) and \(8, 9, 3\)"):
        psnr_y(photo(8, 8), photo(8, 9), 0)


def test_kernel_psnr_is_skimages_with_the_true_peak() -> None:
    kernel, truth = gaussian_kernel(2.1), gaussian_kernel(2.6)
    expected = peak_signal_noise_ratio(  # type: ignore[no-untyped-call]
        truth, kernel, data_range=truth.max()
    )
    assert kernel_psnr(kernel, truth) == pytest.approx(expected)
    assert kernel_psnr(truth, truth) == MAX_PSNR
