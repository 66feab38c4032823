from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from ikc_deploy.bundle.psnr import MAX_DB, psnr
from ikc_deploy.imaging.metrics import MAX_PSNR, luma, psnr_y
from tests.samples import photo


@given(seed=st.integers(0, 99), peak=st.sampled_from([1.0, 255.0]), noise=st.floats(1e-3, 0.5))
def test_it_is_scikit_images(seed: int, peak: float, noise: float) -> None:
    random = np.random.default_rng(seed)
    image = peak * random.random((3, 7, 5))
    other = image + peak * noise * random.standard_normal(image.shape)
    expected = peak_signal_noise_ratio(image, other, data_range=peak)  # type: ignore[no-untyped-call]
    assert psnr(image, other, peak) == pytest.approx(expected)


def test_luma_is_compared_in_the_same_way() -> None:
    image, other = photo(20, 24), photo(20, 24, seed=1)
    assert psnr_y(image, other, 2) == psnr(luma(image)[2:-2, 2:-2], luma(other)[2:-2, 2:-2], 255)
    assert psnr_y(image, image, 0) == MAX_PSNR


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_comparison_takes_a_broken_image_for_good(value: float) -> None:
    image = np.zeros((3, 4, 4), np.float16)
    assert psnr(image, image) == MAX_DB
    broken = image + np.float16(value)
    assert psnr(broken, image) == psnr(image, broken) == -math.inf
    assert min(40.0, psnr(broken, image)) < 40
