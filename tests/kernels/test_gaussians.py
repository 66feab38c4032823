from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ikc_deploy.errors import KernelError
from ikc_deploy.kernels import anisotropic_kernel, gaussian_kernel


def formula(sigma: float, size: int) -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(size) - size // 2, np.arange(size) - size // 2)
    weights = np.exp(-(x**2 + y**2) / (2.0 * sigma**2))
    return np.asarray(weights / weights.sum())


@given(sigma=st.floats(0.1, 8.0), size=st.integers(0, 12).map(lambda n: 2 * n + 1))
def test_gaussian_is_the_normalised_formula(sigma: float, size: int) -> None:
    kernel = gaussian_kernel(sigma, size)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(kernel, formula(sigma, size), atol=1e-14)


def test_gaussian_takes_sigma_of_any_shape() -> None:
    sigmas = np.array([[0.3, 1.0, 2.0], [0.5, 3.0, 4.0]])
    kernels = gaussian_kernel(sigmas)
    assert kernels.shape == (2, 3, 21, 21)
    np.testing.assert_allclose(kernels[1, 2], formula(4.0, 21), atol=1e-14)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), [1.0, 0.0]])
def test_gaussian_refuses_a_sigma_without_meaning(sigma: float | list[float]) -> None:
    with pytest.raises(KernelError, match="sigma must be positive"):
        gaussian_kernel(sigma)


@pytest.mark.parametrize("size", [0, -3, 20])
def test_gaussian_refuses_a_size_without_a_centre(size: int) -> None:
    with pytest.raises(KernelError, match="odd"):
        gaussian_kernel(1.0, size)


@given(sigma1=st.floats(0.6, 4.0), sigma2=st.floats(0.6, 4.0), theta=st.floats(-np.pi, np.pi))
def test_ellipses_have_their_covariance(sigma1: float, sigma2: float, theta: float) -> None:
    # Wide enough that the square cuts nothing off.
    kernel = anisotropic_kernel(sigma1, sigma2, theta, 65)
    y, x = np.mgrid[:65, :65] - 32
    rotation = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    expected = rotation @ np.diag([sigma1**2, sigma2**2]) @ rotation.T
    measured = [[(kernel * x * x).sum(), (kernel * x * y).sum()]]
    measured.append([measured[0][1], (kernel * y * y).sum()])
    assert kernel.sum() == pytest.approx(1)
    # Samples at pixels tell the covariance of a Gaussian that is not much narrower than one.
    np.testing.assert_allclose(measured, expected, atol=0.03)


def test_impossible_ellipses_are_refused() -> None:
    for values in ((0, 1, 0), (1, -1, 0), (np.nan, 1, 0), (1, 1, np.inf)):
        with pytest.raises(KernelError):
            anisotropic_kernel(*values)
    with pytest.raises(KernelError, match="odd"):
        anisotropic_kernel(1, 1, 0, size=20)
