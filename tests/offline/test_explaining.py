from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ikc_deploy.evaluation.metrics import psnr_y
from ikc_deploy.kernels import shifted_gaussian
from ikc_deploy.offline.degrading import (
    Alignment,
    Canvas,
    bicubic_canvas,
    degrade,
    spread,
    to_image,
    to_tensor,
    upscaled,
)
from ikc_deploy.offline.explaining import TRUST, explaining
from tests.offline.test_degrading import lopsided
from tests.samples import photo


def test_it_solves_the_least_squares_problem() -> None:
    canvas = Canvas(4, 3, scale=2, kernel_size=5)
    kernel = torch.from_numpy(lopsided(5))
    generator = torch.Generator().manual_seed(0)
    height, width = canvas.size
    start = torch.rand(1, 1, height, width, generator=generator, dtype=torch.float64)
    lr = torch.rand(1, 1, 4, 3, generator=generator, dtype=torch.float64)
    # The degradation as a matrix, row by row of its transpose.
    units = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    matrix = degrade(units, kernel, 2).flatten(1).numpy().T
    normal = matrix.T @ matrix + TRUST * np.eye(height * width)
    sides = matrix.T @ lr.numpy().ravel() + TRUST * start.numpy().ravel()
    found = explaining(start, lr, kernel, 2)
    np.testing.assert_allclose(found.numpy().ravel(), np.linalg.solve(normal, sides), atol=1e-4)
    np.testing.assert_allclose(
        spread(lr, kernel, 2).numpy().ravel(), matrix.T @ lr.numpy().ravel(), atol=1e-12
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("alignment", ["centre", "fkp"])
def test_under_the_true_kernel_it_makes_more_of_bicubic(scale: int, alignment: Alignment) -> None:
    hr = photo(96, 72)
    kernel = shifted_gaussian(0.3 * scale, 0.6 * scale, 0.5, scale)
    blurred = ndimage.correlate(hr.astype(float), kernel[..., None], mode="nearest")
    lr = np.rint(blurred[::scale, ::scale]).astype(np.uint8)
    canvas = Canvas.of(lr, scale, len(kernel))
    found = explaining(
        bicubic_canvas(lr, canvas),
        to_tensor(lr, "cpu").double(),
        torch.from_numpy(kernel),
        scale,
    )
    before = scale - 1 if alignment == "centre" else 0
    truth = np.pad(hr, ((before, 0), (before, 0), (0, 0)), mode="edge")[:96, :72]
    ours = psnr_y(to_image(canvas.picture(found, alignment)), truth, 2 * scale)
    assert ours > psnr_y(upscaled(lr, scale, alignment), truth, 2 * scale) + 0.3
