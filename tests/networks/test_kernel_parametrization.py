from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.kernels import SIGMA_RANGES, KernelBasis, anisotropic_kernel, gaussian_kernel
from ikc_deploy.networks.kernel_parametrization import (
    EllipseParametrization,
    PiecewiseLinear,
    SigmaCurve,
    ellipse_parameters,
    gaussian_kernels,
)

RANGE = (0.6, 4.0)
BASIS = KernelBasis.fit(RANGE, 40, family="anisotropic")
sigmas = st.floats(*RANGE)
angles = st.floats(-4.0, 4.0)


def curve_of(basis: KernelBasis) -> SigmaCurve:
    curve = SigmaCurve(basis.code_size, basis.sigma_range)
    curve.fit_to(basis)
    return curve


def test_piecewise_linear_interpolates_and_is_constant_outside() -> None:
    random = np.random.default_rng(0)
    x, y = np.cumsum(random.uniform(0.1, 1, 9)), random.standard_normal((9, 4))
    line = PiecewiseLinear(9, 4)
    line.set_knots(x, y)
    at = np.linspace(x[0] - 2, x[-1] + 2, 101)
    expected = np.stack([np.interp(at, x, column) for column in y.T], axis=1)
    measured = line(torch.from_numpy(at[:, None]).float()).numpy()
    # y = start + sum of ramp * bend. Rounding of x and of the knots moves a ramp by up to an eps of
    # each, and a sum of n products by n eps of the sum of their sizes.
    bends = np.abs(line.state_dict()["bends"].numpy().astype(np.float64))
    ramps = np.maximum(np.clip(at, x[0], x[-1])[:, None] - x[:-1], 0)
    sizes = np.abs(y[0]) + ramps @ bends
    shifts = (ramps > 0) * (np.abs(at)[:, None] + np.abs(x[:-1]))
    bound = float(np.finfo(np.float32).eps) * ((len(x) + 3) * sizes + shifts @ bends)
    assert np.all(np.abs(measured - expected) <= bound)
    # And the bound says something.
    assert bound.max() < 1e-3


@pytest.mark.parametrize("scale", sorted(SIGMA_RANGES))
def test_the_curve_agrees_with_the_basis(scale: int) -> None:
    basis = KernelBasis.fit(SIGMA_RANGES[scale])
    # Another sign convention is another basis; the curve follows the one that it is given.
    signs = np.where(np.arange(10) % 3 == 0, -1, 1).astype(np.float32)
    basis = KernelBasis(basis.components * signs, basis.mean, basis.sigma_range)
    curve, sigmas = curve_of(basis), np.linspace(*SIGMA_RANGES[scale], 777)
    codes = basis.code_of_sigma(sigmas)
    np.testing.assert_allclose(
        curve.code(torch.from_numpy(sigmas[:, None]).float()), codes, atol=1e-3
    )
    # Below, the kernel is a delta, and no code tells one sigma from another.
    seen = sigmas >= 0.35
    found = curve.kernel_parameters(torch.from_numpy(codes[seen]))[:, 0]
    np.testing.assert_allclose(found, sigmas[seen], atol=2e-3)
    assert curve.kernel_parameters(torch.from_numpy(codes[~seen])).max() < 0.36


def test_sigma_outside_the_range_is_clamped() -> None:
    curve = curve_of(KernelBasis.fit((0.2, 4.0)))
    outside, ends = torch.tensor([[-1.0], [9.0]]), torch.tensor([[0.2], [4.0]])
    torch.testing.assert_close(curve.code(outside), curve.code(ends))


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
