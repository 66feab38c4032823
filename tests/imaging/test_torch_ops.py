from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch import Tensor

from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.imaging import degrade, metrics, torch_ops
from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.kernels import gaussian_kernel
from ikc_deploy.kernels.conventions import degrade_fkp, random_fkp_kernels
from tests.samples import photo


def tensor(image: NDArray[np.uint8]) -> Tensor:
    """`[1,3,H,W]` float32 in [0,1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def close(found: Tensor, expected: NDArray[np.floating]) -> None:
    """Whether a batch of one image is one in 8-bit levels, to 1e-5 of white."""
    image = found[0].permute(1, 2, 0).double().numpy()
    np.testing.assert_allclose(image, expected / 255, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.sampled_from([2, 3, 4]),
    rows=st.integers(7, 20),
    columns=st.integers(7, 20),
    seed=st.integers(0, 99),
)
def test_numpy_and_torch_compute_the_same(scale: int, rows: int, columns: int, seed: int) -> None:
    hr = photo(4 * scale * rows // 2 * 2, 4 * scale * columns // 2 * 2, seed)
    hr = degrade.crop_to_multiple(hr, scale)
    (kernel,) = random_fkp_kernels(np.random.default_rng(seed), 1, scale)
    kernels = torch.from_numpy(kernel)[None].float()
    close(torch_ops.resize(tensor(hr), 1 / scale), resize_bicubic(hr, 1 / scale))
    close(torch_ops.resize(tensor(hr), scale), resize_bicubic(hr, scale))
    close(torch_ops.blur(tensor(hr), kernels), degrade.blur(hr, kernel))
    close(torch_ops.degrade_circular(tensor(hr), kernels, scale), degrade_fkp(hr, kernel, scale))
    # In numpy luma has the studio range, for PSNR-Y as published.
    full = (metrics.luma(hr) - 16) / 219 * 255
    close(torch_ops.luma(tensor(hr)), full[..., None])
    noisy = np.clip(hr.astype(int) + np.random.default_rng(seed).integers(-9, 9, hr.shape), 0, 255)
    found = torch_ops.psnr(torch.cat([tensor(hr), tensor(noisy.astype(np.uint8))]), tensor(hr))
    expected = [metrics.MAX_PSNR, psnr(noisy / 255, hr / 255)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_every_image_is_correlated_with_its_own_kernel() -> None:
    random = np.random.default_rng(0)
    images = random.random((3, 2, 24, 30))
    kernels = random.random((3, 21, 21))
    expected = [
        [ndimage.correlate(channel, kernel, mode="mirror") for channel in image]
        for image, kernel in zip(images, kernels, strict=True)
    ]
    blurred = torch_ops.blur(torch.from_numpy(images), torch.from_numpy(kernels))
    np.testing.assert_allclose(blurred, expected, atol=1e-10)


def test_correlation_by_fft_is_that_of_the_convolution() -> None:
    images, kernels = torch.rand(3, 2, 44, 50), torch.rand(3, 21, 21)
    kernels /= kernels.sum(dim=(1, 2), keepdim=True)
    expected = F.conv2d(images.double().transpose(0, 1), kernels.double()[:, None], groups=3)
    found = torch_ops.correlate_by_fft(images, kernels)[..., :24, :30]
    torch.testing.assert_close(found.double(), expected.transpose(0, 1), atol=3e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_training_and_evaluation_degrade_alike(scale: int) -> None:
    sigmas = [0.2, 1.1, 2.0]
    hr = np.stack([photo(144, 120, seed) for seed in range(3)])
    kernels = gaussian_kernel(sigmas)
    batch = torch.from_numpy(hr).permute(0, 3, 1, 2).float() / 255
    lr = torch_ops.quantized(torch_ops.degrade(batch, torch.from_numpy(kernels).float(), scale))
    levels = (lr * 255).round()
    # On the grid of 8-bit levels, as files are.
    torch.testing.assert_close(lr * 255, levels, atol=1e-3, rtol=0)
    expected = [degrade.degrade(*pair, scale) for pair in zip(hr, kernels, strict=True)]
    measured = levels.permute(0, 2, 3, 1).numpy()
    difference = np.abs(measured - np.stack(expected))
    assert difference.max() <= 1
    assert np.mean(difference == 0) > 0.999


def test_luma_is_that_of_scikit_image() -> None:
    image = photo(20, 30)
    expected = rgb2ycbcr(image)[..., 0]
    np.testing.assert_allclose(metrics.luma(image), expected, atol=1e-9)


def test_ssim_is_that_of_numpy_and_of_scikit_image() -> None:
    first, second = photo(30, 24), photo(30, 24, seed=1)
    expected = structural_similarity(  # type: ignore[no-untyped-call]
        first / 255,
        second / 255,
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    pair = [tensor(image).double() for image in (first, second)]
    assert float(torch_ops.ssim(*pair)) == pytest.approx(expected, abs=1e-6)
    grey = [np.repeat(image[..., :1], 3, axis=2) for image in (first, second)]
    # SSIM-Y is that of luma, whose range is 219 of 255 levels from 16 on.
    lumas = [tensor(image)[:, :1].double() * 219 / 255 + 16 / 255 for image in grey]
    assert metrics.ssim_y(grey[0], grey[1], 0) == pytest.approx(
        float(torch_ops.ssim(*lumas)), abs=1e-5
    )


def test_equal_images_are_the_maximum_and_the_slope_leads_there() -> None:
    reference = tensor(photo(20, 20)).double()
    assert float(torch_ops.ssim(reference, reference)) == pytest.approx(1)
    start = (0.5 * reference + 0.2).requires_grad_()
    before = torch_ops.ssim(start, reference)
    before.backward()  # type: ignore[no-untyped-call]
    assert start.grad is not None
    with torch.no_grad():
        assert torch_ops.ssim(start + 0.1 * start.grad, reference) > before


def test_an_image_converted_to_torch_and_back_is_unchanged() -> None:
    image = photo(7, 9)
    np.testing.assert_array_equal(torch_ops.to_image(torch_ops.to_tensor(image, "cpu")), image)
