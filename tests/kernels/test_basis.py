from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ikc_deploy.errors import KernelError
from ikc_deploy.kernels import (
    SIGMA_RANGES,
    KernelBasis,
    gaussian_kernel,
)

SCALES = sorted(SIGMA_RANGES)
UNIT = st.floats(0, 1)


@cache
def fitted(scale: int) -> KernelBasis:
    return KernelBasis.fit(SIGMA_RANGES[scale])


@pytest.mark.parametrize("scale", SCALES)
def test_decoding_a_code_gives_the_kernel_back(scale: int) -> None:
    kernels = gaussian_kernel(np.linspace(*SIGMA_RANGES[scale], 400))
    decoded = fitted(scale).decode(fitted(scale).encode(kernels))
    np.testing.assert_allclose(decoded, kernels, atol=1e-3)
    np.testing.assert_allclose(decoded.sum(axis=(-2, -1)), 1, atol=1e-4)


def test_the_components_alone_are_not_the_kernel() -> None:
    basis, kernel = fitted(4), gaussian_kernel(2.6)
    alone = (basis.components @ basis.encode(kernel)).reshape(21, 21)
    size = np.linalg.norm(kernel)
    assert np.linalg.norm(alone - kernel) > 0.1 * size
    assert np.linalg.norm(basis.decode(basis.encode(kernel)) - kernel) < 1e-3 * size


def test_encoding_projects_without_removing_a_mean() -> None:
    basis = fitted(4)
    kernel = np.random.default_rng(0).random((21, 21))
    kernel /= kernel.sum()
    expected = basis.components.astype(np.float64).T @ kernel.ravel()
    np.testing.assert_allclose(basis.encode(kernel), expected, atol=1e-7)


@pytest.mark.parametrize("scale", SCALES)
def test_fit_finds_the_principal_directions(scale: int) -> None:
    sigmas = np.random.default_rng(0).uniform(*SIGMA_RANGES[scale], 2000)
    kernels = gaussian_kernel(sigmas).reshape(2000, -1)
    basis = fitted(scale).components
    centred = kernels - kernels.mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    # Compared one by one: the last directions hold a millionth of the variance.
    np.testing.assert_allclose(((centred @ basis) ** 2).sum(axis=0)[:5], variances[:5], rtol=0.05)
    assert np.all(basis[np.abs(basis).argmax(axis=0), np.arange(10)] > 0)


@given(scale=st.sampled_from(SCALES), fraction=UNIT)
def test_sigma_of_code_inverts_code_of_sigma(scale: int, fraction: float) -> None:
    low, high = SIGMA_RANGES[scale]
    sigma = low + fraction * (high - low)
    basis = fitted(scale)
    assert basis.sigma_of_code(basis.code_of_sigma(sigma)) == pytest.approx(sigma, abs=2e-4)


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-4, 0.3))
def test_sigma_of_code_is_the_nearest_gaussian(seed: int, size: float) -> None:
    basis, random = fitted(4), np.random.default_rng(seed)
    code = basis.code_of_sigma(random.uniform(0.2, 4.0)) + size * random.standard_normal(10)
    found = basis.code_of_sigma(basis.sigma_of_code(code))
    others = basis.code_of_sigma(np.linspace(0.2, 4.0, 1500))
    nearest = np.linalg.norm(others - code, axis=1).min()
    assert np.linalg.norm(found - code) <= nearest + 1e-5


def test_saving_and_loading_keeps_the_identity(tmp_path: Path) -> None:
    basis = fitted(3)
    basis.save(tmp_path / "basis.npz")
    loaded = KernelBasis.load(tmp_path / "basis.npz")
    assert loaded.id == basis.id
    assert loaded.sigma_range == basis.sigma_range
    np.testing.assert_array_equal(loaded.components, basis.components)


def test_the_identity_notices_one_flipped_sign_and_another_range() -> None:
    basis = fitted(4)
    signs = np.ones(10, np.float32)
    signs[7] = -1
    flipped = KernelBasis(basis.components * signs, basis.mean, basis.sigma_range)
    widened = KernelBasis(basis.components, basis.mean, (0.2, 4.1))
    shifted = KernelBasis(basis.components, np.roll(basis.mean, 1), basis.sigma_range)
    assert len({basis.id, flipped.id, widened.id, shifted.id}) == 4
    assert KernelBasis.fit((0.2, 4.0)).id == basis.id


@pytest.mark.parametrize("sigma", [0.19, 4.01, -1.0, float("nan"), [1.0, 5.0]])
def test_code_of_sigma_refuses_what_the_networks_never_saw(sigma: float | list[float]) -> None:
    with pytest.raises(KernelError, match=r"\[0\.2, 4\]"):
        fitted(4).code_of_sigma(sigma)


def test_shapes_that_do_not_fit_the_basis_are_refused() -> None:
    basis = fitted(4)
    with pytest.raises(KernelError, match=r"21, 21.*got \[19, 19\]"):
        basis.encode(gaussian_kernel(1.0, 19))
    with pytest.raises(KernelError, match=r"10.*got \[9\]"):
        basis.decode(np.zeros(9))
    with pytest.raises(KernelError, match="10"):
        basis.sigma_of_code(np.zeros((2, 11)))
    with pytest.raises(KernelError, match="10"):
        basis.decode(np.float64(1))


@pytest.mark.parametrize(
    ("components", "mean", "sigma_range", "word"),
    [
        (np.eye(440, 10), np.zeros(440), (0.2, 4.0), "odd"),
        (np.eye(400, 10), np.zeros(400), (0.2, 4.0), "odd"),
        (np.zeros(441), np.zeros(441), (0.2, 4.0), "components"),
        (np.eye(441, 10), np.zeros(440), (0.2, 4.0), "mean"),
        (2 * np.eye(441, 10), np.zeros(441), (0.2, 4.0), "orthonormal"),
        (np.eye(441, 10), np.zeros(441), (4.0, 0.2), "range"),
    ],
)
def test_an_impossible_basis_is_refused(
    components: NDArray[np.float64],
    mean: NDArray[np.float64],
    sigma_range: tuple[float, float],
    word: str,
) -> None:
    with pytest.raises(KernelError, match=word):
        KernelBasis(components.astype(np.float32), mean.astype(np.float32), sigma_range)


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "array missing", "bad range"])
def test_a_damaged_basis_file_is_named(tmp_path: Path, damage: str) -> None:
    path, basis = tmp_path / "basis.npz", fitted(2)
    basis.save(path)
    arrays = {"components": basis.components, "mean": basis.mean}
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "array missing":
        np.savez(path, allow_pickle=False, **arrays)
    else:
        np.savez(path, allow_pickle=False, **arrays, sigma_range=np.ones(3))
    with pytest.raises(KernelError, match=r"basis\.npz"):
        KernelBasis.load(path)


@given(noise=UNIT, compression=UNIT, sigma=st.floats(0.3, 3.9))
def test_levels_neither_come_from_a_kernel_nor_change_one(
    noise: float, compression: float, sigma: float
) -> None:
    plain, basis = fitted(4), fitted(4).with_levels(2)
    assert (basis.levels, basis.code_size) == (2, plain.code_size + 2)
    code = basis.code_of_sigma(sigma)
    np.testing.assert_array_equal(code, np.append(plain.code_of_sigma(sigma), [0, 0]))
    read = np.append(np.zeros(plain.code_size), [noise, compression])
    mixed = basis.take_levels(code, read)
    np.testing.assert_array_equal(basis.decode(mixed), plain.decode(code[:-2]))
    assert basis.sigma_of_code(mixed) == pytest.approx(float(plain.sigma_of_code(code[:-2])))
    assert basis.noise_of_code(mixed) == pytest.approx(25 * noise)
    assert basis.jpeg_quality_of_code(mixed) == pytest.approx(100 - 50 * compression)
    assert plain.noise_of_code(code[:-2]) is None
    assert plain.jpeg_quality_of_code(code[:-2]) is None
