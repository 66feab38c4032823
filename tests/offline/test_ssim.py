from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity

from ikc_deploy.offline.ssim import ssim
from tests.samples import photo


def test_it_is_scikit_images_ssim() -> None:
    first, second = photo(30, 24) / 255, photo(30, 24, seed=1) / 255
    expected = structural_similarity(  # type: ignore[no-untyped-call]
        first,
        second,
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    tensors = [torch.from_numpy(image.transpose(2, 0, 1))[None] for image in (first, second)]
    assert float(ssim(*tensors)) == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_are_the_maximum_and_the_slope_leads_there() -> None:
    reference = torch.from_numpy(photo(20, 20).transpose(2, 0, 1) / 255)[None]
    assert float(ssim(reference, reference)) == pytest.approx(1)
    start = (0.5 * reference + 0.2).requires_grad_()
    before = ssim(start, reference)
    before.backward()  # type: ignore[no-untyped-call]
    assert start.grad is not None
    with torch.no_grad():
        assert ssim(start + 0.1 * start.grad, reference) > before
