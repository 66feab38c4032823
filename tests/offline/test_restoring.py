from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ikc_deploy.evaluation.metrics import psnr_y
from ikc_deploy.offline import restoring
from ikc_deploy.offline.degrading import Alignment, upscaled
from ikc_deploy.offline.restoring import picture_under
from tests.offline.test_degrading import lopsided
from tests.samples import photo


def test_it_solves_the_least_squares_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    scale, height, width, size = 2, 4, 3, 5
    random = np.random.default_rng(0)
    kernel = lopsided(size)
    lr, start = random.random((height, width, 1)), random.random((8, 6, 1))
    # The degradation as a matrix, column by column.
    columns = []
    for index in range(48):
        unit = np.zeros(48)
        unit[index] = 1
        blurred = ndimage.correlate(unit.reshape(8, 6), kernel, mode="wrap")
        columns.append(blurred[::scale, ::scale].ravel())
    matrix = np.array(columns).T
    weight = restoring._TRUST
    normal = matrix.T @ matrix + weight * np.eye(48)
    expected = np.linalg.solve(normal, matrix.T @ lr.ravel() + weight * start.ravel())
    found = restoring._solve(lr, start, kernel, scale)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-10)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("alignment", ["centre", "fkp"])
def test_under_the_true_kernel_it_beats_bicubic(scale: int, alignment: Alignment) -> None:
    hr = photo(96, 72)
    size = 4 * scale + 3
    offsets = np.arange(size) - (size - scale) / 2
    profile = np.exp(-0.5 * (offsets / (0.4 * scale)) ** 2)
    kernel = np.outer(profile, profile) / profile.sum() ** 2
    blurred = ndimage.correlate(hr.astype(float), kernel[..., None], mode="nearest")
    lr = np.rint(blurred[::scale, ::scale]).astype(np.uint8)
    lag = scale - 1 if alignment == "centre" else 0
    truth = np.pad(hr, ((lag, 0), (lag, 0), (0, 0)), mode="edge")[:96, :72]
    ours = psnr_y(picture_under(lr, kernel, scale, alignment), truth, 2 * scale)
    assert ours > psnr_y(upscaled(lr, scale, alignment), truth, 2 * scale) + 0.5
