from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.kernels import KernelBasis, anisotropic_kernel, gaussian_kernel
from ikc_deploy.networks.ellipses import (
    EllipseParametrization,
    ellipse_parameters,
    gaussian_kernels,
)

RANGE = (0.6, 4.0)
BASIS = KernelBasis.fit(RANGE, 40, family="anisotropic")
sigmas = st.floats(*RANGE)
angles = st.floats(-4.0, 4.0)


@pytest.fixture(scope="module")
def chart() -> EllipseParametrization:
    chart = EllipseParametrization(BASIS.code_size, RANGE)
    chart.fit_to(BASIS)
    return chart


def spread(sigma1: float, sigma2: float, theta: float) -> torch.Tensor:
    values = torch.tensor([[sigma1], [sigma2], [theta]], dtype=torch.float64)
    return ellipse_parameters(*values)


@given(sigma1=sigmas, sigma2=sigmas, theta=angles)
def test_kernels_on_the_device_are_those_of_numpy(
    sigma1: float, sigma2: float, theta: float
) -> None:
    measured = gaussian_kernels(spread(sigma1, sigma2, theta), 21)[0]
    np.testing.assert_allclose(measured, anisotropic_kernel(sigma1, sigma2, theta), atol=1e-12)


def test_a_round_spread_may_be_one_number() -> None:
    sigma = np.linspace(0.2, 4.0, 9)
    kernels = gaussian_kernels(torch.from_numpy(sigma)[:, None], 21)
    np.testing.assert_allclose(kernels, gaussian_kernel(sigma), atol=1e-12)


@given(sigma1=sigmas, sigma2=sigmas, theta=angles)
def test_the_code_is_the_basis_s_and_leads_back(
    chart: EllipseParametrization, sigma1: float, sigma2: float, theta: float
) -> None:
    given_spread = spread(sigma1, sigma2, theta).float()
    code = chart.code(given_spread)
    expected = BASIS.encode(anisotropic_kernel(sigma1, sigma2, theta))
    # Rounding of the half difference of nearly equal sigmas is all that differs.
    np.testing.assert_allclose(code[0], expected, atol=1e-3)
    # The basis drops a little of thin kernels, and the square cuts wide slanting ones.
    np.testing.assert_allclose(chart.kernel_parameters(code), given_spread, atol=0.25)


def test_sigmas_outside_the_range_are_clamped(chart: EllipseParametrization) -> None:
    outside, inside = spread(9.0, 0.1, 0.7).float(), spread(4.0, 0.6, 0.7).float()
    torch.testing.assert_close(chart.code(outside), chart.code(inside), atol=1e-4, rtol=0)
