from __future__ import annotations

import numpy as np
import pytest
import torch

from ikc_deploy.kernels import SIGMA_RANGES, KernelBasis
from ikc_deploy.networks.sigma_curve import PiecewiseLinear, SigmaCurve


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
