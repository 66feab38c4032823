from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.offline.fit_settings import Alignment
from ikc_deploy.offline.forward_model import PaddedHr, degrade, upscaled
from tests.samples import photo


def lopsided(size: int, seed: int = 0) -> NDArray[np.float64]:
    """A kernel that is its own mirror image in no direction."""
    kernel = np.random.default_rng(seed).random((size, size))
    return kernel / kernel.sum()


@given(
    scale=st.integers(2, 4), height=st.integers(5, 9), width=st.integers(5, 9), seed=st.integers(0)
)
def test_a_wrapped_canvas_gives_the_lr_picture_of_the_convention(
    scale: int, height: int, width: int, seed: int
) -> None:
    size = 4 * scale + 3
    kernel = lopsided(size, seed % 1000)
    hr = np.random.default_rng(seed % 1000).random((scale * height, scale * width))
    blurred = ndimage.correlate(hr, kernel, mode="wrap")
    padded = PaddedHr(height, width, scale, size)
    wrapped = np.pad(hr, ((padded.before, padded.after),) * 2, mode="wrap")
    assert wrapped.shape == padded.size
    lr = degrade(torch.from_numpy(wrapped)[None, None], torch.from_numpy(kernel), scale)
    np.testing.assert_allclose(lr[0, 0].numpy(), blurred[::scale, ::scale], atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("alignment", ["centre", "fkp"])
def test_lr_pixels_lie_where_the_alignment_says(scale: int, alignment: Alignment) -> None:
    size = 4 * scale + 3
    padded = PaddedHr(9, 9, scale, size)
    # Under a kernel of the convention's centre, an LR pixel is the mean of what it stands for.
    middle = (size - scale) / 2
    profile = np.exp(-0.5 * (np.arange(size) - middle) ** 2)
    kernel = torch.from_numpy(np.outer(profile, profile) / profile.sum() ** 2)
    rows = torch.arange(padded.size[0], dtype=torch.float64)[:, None].expand(padded.size)
    seen = degrade(rows[None, None], kernel, scale)[0, 0, :, 0]
    picture = padded.picture(rows, alignment)
    assert picture.shape == (9 * scale, 9 * scale)
    place = (seen - picture[0, 0]).numpy()
    first = (scale - 1) / 2 if alignment == "centre" else -(scale - 1) / 2
    np.testing.assert_allclose(place, first + scale * np.arange(9), atol=1e-2)


def test_bicubic_upscaling_is_that_of_the_protocol_or_lies_scale_less_one_further() -> None:
    lr = photo(12, 10)
    plain = np.clip(np.rint(resize_bicubic(lr, 3)), 0, 255)
    # One level where rounding is a matter of the last bit.
    np.testing.assert_allclose(upscaled(lr, 3), plain, atol=1)
    np.testing.assert_allclose(upscaled(lr, 3, "fkp")[:-2, :-2], plain[2:, 2:], atol=1)
