from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.torch_ops import to_image, to_tensor
from ikc_deploy.kernels import shifted_gaussian
from ikc_deploy.offline.data_consistency import REGULARIZATION, enforce_data_consistency
from ikc_deploy.offline.fit_settings import Alignment
from ikc_deploy.offline.forward_model import (
    PaddedHr,
    bicubic_padded_hr,
    degrade,
    degrade_adjoint,
    upscaled,
)
from tests.offline.test_forward_model import lopsided
from tests.samples import photo


def test_it_solves_the_least_squares_problem() -> None:
    padded = PaddedHr(4, 3, scale=2, kernel_size=5)
    kernel = torch.from_numpy(lopsided(5))
    generator = torch.Generator().manual_seed(0)
    height, width = padded.size
    start = torch.rand(1, 1, height, width, generator=generator, dtype=torch.float64)
    lr = torch.rand(1, 1, 4, 3, generator=generator, dtype=torch.float64)
    # The degradation as a matrix, row by row of its transpose.
    units = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    matrix = degrade(units, kernel, 2).flatten(1).numpy().T
    normal = matrix.T @ matrix + REGULARIZATION * np.eye(height * width)
    sides = matrix.T @ lr.numpy().ravel() + REGULARIZATION * start.numpy().ravel()
    found = enforce_data_consistency(start, lr, kernel, 2)
    np.testing.assert_allclose(found.numpy().ravel(), np.linalg.solve(normal, sides), atol=1e-4)
    np.testing.assert_allclose(
        degrade_adjoint(lr, kernel, 2).numpy().ravel(), matrix.T @ lr.numpy().ravel(), atol=1e-12
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("alignment", ["centre", "fkp"])
def test_under_the_true_kernel_it_makes_more_of_bicubic(scale: int, alignment: Alignment) -> None:
    hr = photo(96, 72)
    kernel = shifted_gaussian(0.3 * scale, 0.6 * scale, 0.5, scale)
    blurred = ndimage.correlate(hr.astype(float), kernel[..., None], mode="nearest")
    lr = np.rint(blurred[::scale, ::scale]).astype(np.uint8)
    padded = PaddedHr.of(lr, scale, len(kernel))
    found = enforce_data_consistency(
        bicubic_padded_hr(lr, padded),
        to_tensor(lr, "cpu").double(),
        torch.from_numpy(kernel),
        scale,
    )
    before = scale - 1 if alignment == "centre" else 0
    truth = np.pad(hr, ((before, 0), (before, 0), (0, 0)), mode="edge")[:96, :72]
    ours = psnr_y(to_image(padded.picture(found, alignment)), truth, 2 * scale)
    assert ours > psnr_y(upscaled(lr, scale, alignment), truth, 2 * scale) + 0.3
