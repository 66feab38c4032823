from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.degrade import SIGMAS, blur, crop_to_multiple, degrade, degrade_gaussian
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import quantize, upscale_bicubic
from ikc_deploy.kernels import gaussian_kernel
from tests.samples import photo


def test_the_sigmas_are_the_papers() -> None:
    # Eight steps from 0.80 to 1.60, 1.35 to 2.40 and 1.80 to 3.20 (IKC, section 4.1).
    assert SIGMAS[4] == (1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.2)
    assert SIGMAS[3] == (1.35, 1.5, 1.65, 1.8, 1.95, 2.1, 2.25, 2.4)
    assert SIGMAS[2] == pytest.approx([0.8 + 0.8 * step / 7 for step in range(8)], abs=1e-6)


@pytest.mark.parametrize("shape", [(40, 33), (12, 70)])
def test_blur_is_correlation_with_a_mirrored_border(shape: tuple[int, int]) -> None:
    image = photo(*shape).astype(np.float64)
    # No symmetry, so that a flipped kernel or a shifted image cannot hide.
    kernel = np.random.default_rng(0).random((21, 21))
    kernel /= kernel.sum()
    expected = ndimage.correlate(image, kernel[:, :, None], mode="mirror")
    np.testing.assert_allclose(blur(image, kernel), expected, atol=1e-9)


def test_degrading_blurs_then_shrinks_then_rounds() -> None:
    hr = photo(48, 72)
    kernel = np.zeros((21, 21))
    kernel[10, 10] = 1
    flat = np.full((24, 32, 3), 77, np.uint8)
    assert degrade(hr, kernel, 4).shape == (12, 18, 3)
    np.testing.assert_array_equal(degrade(flat, gaussian_kernel(3.0), 4), flat[:6, :8])
    variances = [degrade_gaussian(hr, sigma, 4).astype(float).var() for sigma in (0.3, 1.8, 3.2)]
    assert variances == sorted(variances, reverse=True)


def test_quantize_rounds_and_clips() -> None:
    values = np.array([[-3.0, 0.49, 0.51, 99.5001, 254.6, 300.0]])
    assert quantize(values).tolist() == [[0, 0, 1, 100, 255, 255]]


def test_crop_keeps_the_top_left_and_refuses_tiny_images() -> None:
    image = photo(35, 50)
    np.testing.assert_array_equal(crop_to_multiple(image, 4), image[:32, :48])
    with pytest.raises(InputError, match=r"50x15.*at least 16"):
        crop_to_multiple(image[:15], 4)


def test_bicubic_on_set5_is_the_published_baseline(shared: Path) -> None:
    scores = []
    for path in list_images(shared / "data" / "eval" / "Set5"):
        hr = crop_to_multiple(read_rgb(path), 4)
        for sigma in SIGMAS[4]:
            upscaled = upscale_bicubic(degrade_gaussian(hr, sigma, 4), 4)
            scores.append(psnr_y(upscaled, hr, border=4))
    assert len(scores) == 40
    assert np.mean(scores) == pytest.approx(25.87, abs=0.02)
