from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy import InputError, gaussian_kernel
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.imaging.degrade import degrade
from tests.samples import photo

KERNEL = gaussian_kernel(2.0)
GREY = np.full((256, 320, 3), 128, np.uint8)


def noise_of(degradation: Degradation, name: str = "a.png") -> NDArray[np.float64]:
    """What remains of a flat image."""
    return degradation.apply(GREY, KERNEL, 2, name).astype(np.float64) - 128


def test_without_noise_and_jpeg_it_is_the_plain_protocol() -> None:
    hr = photo(64, 96)
    ours = Degradation().apply(hr, KERNEL, 4, "a.png")
    np.testing.assert_array_equal(ours, degrade(hr, KERNEL, 4))


def test_noise_is_white_gaussian_of_the_given_deviation() -> None:
    noise = noise_of(Degradation(noise=10))
    # 20,480 pixels of three channels; rounding adds a variance of 1/12.
    assert noise.std() == pytest.approx(np.hypot(10, 12**-0.5), rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert np.mean(np.abs(noise) < 10) == pytest.approx(0.6827, abs=0.03)
    neighbours = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    channels = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert abs(neighbours) < 0.02 and abs(channels) < 0.03


def test_noise_depends_on_the_seed_and_the_images_name_alone() -> None:
    first = noise_of(Degradation(noise=5))
    np.testing.assert_array_equal(first, noise_of(Degradation(noise=5)))
    assert np.any(first != noise_of(Degradation(noise=5), "b.png"))
    assert np.any(first != noise_of(Degradation(noise=5, seed=1)))


def test_jpeg_comes_last_and_loses_more_at_a_lower_quality() -> None:
    hr = photo(96, 128)
    noisy = Degradation(noise=8).apply(hr, KERNEL, 2, "a.png")
    errors = []
    for quality in (95, 60, 20):
        file = io.BytesIO()
        # Pillow's own choice of subsampling is the usual 4:2:0.
        Image.fromarray(noisy).save(file, "JPEG", quality=quality)
        found = Degradation(noise=8, jpeg=quality).apply(hr, KERNEL, 2, "a.png")
        np.testing.assert_array_equal(found, np.asarray(Image.open(file)))
        errors.append(np.mean((found.astype(float) - noisy) ** 2))
    assert errors == sorted(errors) and errors[0] > 0


def test_the_title_names_what_was_added() -> None:
    assert Degradation().title == ""
    assert Degradation(noise=2.5, jpeg=60).title == ", noise 2.5, JPEG 60"


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf")])
def test_impossible_noise_is_refused(noise: float) -> None:
    with pytest.raises(InputError, match="noise must be 0 or more 8-bit levels"):
        Degradation(noise=noise)


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_impossible_jpeg_quality_is_refused(quality: int) -> None:
    with pytest.raises(InputError, match="JPEG quality must be 1 to 100"):
        Degradation(jpeg=quality)
