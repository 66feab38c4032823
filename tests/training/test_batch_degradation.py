from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from ikc_deploy.imaging import degrade as gaussian8
from ikc_deploy.kernels import gaussian_kernel
from ikc_deploy.training.batch_degradation import blur, correlate_by_fft, degrade, quantized
from tests.samples import photo


def test_every_image_is_correlated_with_its_own_kernel() -> None:
    random = np.random.default_rng(0)
    images = random.random((3, 2, 24, 30))
    kernels = random.random((3, 21, 21))
    expected = [
        [ndimage.correlate(channel, kernel, mode="mirror") for channel in image]
        for image, kernel in zip(images, kernels, strict=True)
    ]
    blurred = blur(torch.from_numpy(images), torch.from_numpy(kernels))
    np.testing.assert_allclose(blurred, expected, atol=1e-10)


def test_correlation_by_fft_is_that_of_the_convolution() -> None:
    images, kernels = torch.rand(3, 2, 44, 50), torch.rand(3, 21, 21)
    kernels /= kernels.sum(dim=(1, 2), keepdim=True)
    expected = F.conv2d(images.double().transpose(0, 1), kernels.double()[:, None], groups=3)
    found = correlate_by_fft(images, kernels)[..., :24, :30]
    torch.testing.assert_close(found.double(), expected.transpose(0, 1), atol=3e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_training_and_evaluation_degrade_alike(scale: int) -> None:
    sigmas = [0.2, 1.1, 2.0]
    hr = np.stack([photo(144, 120, seed) for seed in range(3)])
    kernels = gaussian_kernel(sigmas)
    batch = torch.from_numpy(hr).permute(0, 3, 1, 2).float() / 255
    lr = quantized(degrade(batch, torch.from_numpy(kernels).float(), scale)) * 255
    levels = lr.round()
    # On the grid of 8-bit levels, as files are.
    torch.testing.assert_close(lr, levels, atol=1e-3, rtol=0)
    expected = [gaussian8.degrade(*pair, scale) for pair in zip(hr, kernels, strict=True)]
    measured = levels.permute(0, 2, 3, 1).numpy()
    difference = np.abs(measured - np.stack(expected))
    assert difference.max() <= 1
    assert np.mean(difference == 0) > 0.999
