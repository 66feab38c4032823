from __future__ import annotations

import pytest

from ikc_deploy.kernels import Family, KernelBasis, explained_variance, family_kernels


@pytest.mark.parametrize(
    ("family", "sigma_range", "size"),
    [("isotropic", (0.2, 4.0), 5), ("anisotropic", (0.6, 4.0), 16)],
)
def test_explained_variance_is_what_a_basis_keeps(
    family: Family, sigma_range: tuple[float, float], size: int
) -> None:
    shares = explained_variance(family, sigma_range)
    basis = KernelBasis.fit(sigma_range, size, family=family)
    kernels = family_kernels(family, sigma_range)
    lost = ((basis.decode(basis.encode(kernels)) - kernels) ** 2).sum()
    everything = ((kernels - kernels.mean(axis=0)) ** 2).sum()
    assert shares[size - 1] == pytest.approx(1 - lost / everything, abs=1e-5)
    assert shares[size - 1] > 0.99
