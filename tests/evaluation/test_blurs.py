from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ikc_deploy import InputError, KernelError
from ikc_deploy.evaluation.blurs import (
    DEGRADATIONS,
    Blur,
    BlurSet,
    DegradationName,
    Filter,
    sigma_of_gaussian,
)
from ikc_deploy.files import sha256_file
from ikc_deploy.imaging.degrade import SIGMAS


def kernels_of(found: BlurSet) -> list[np.ndarray]:
    assert all(isinstance(blur, Blur) for blur in found.blurs)
    return [blur.kernel for blur in found.blurs if isinstance(blur, Blur)]


def covariance(kernel: np.ndarray) -> np.ndarray:
    """Of a centred kernel, in pixels."""
    y, x = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    xx, xy, yy = ((kernel * a * b).sum() for a, b in ((x, x), (x, y), (y, y)))
    return np.array([[xx, xy], [xy, yy]])


def impulse_response(sigmas: float | tuple[float, float], size: int = 21) -> np.ndarray:
    """scipy's Gaussian, cut to size."""
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1
    kernel = ndimage.gaussian_filter(impulse, sigmas, mode="constant", truncate=99)
    return kernel / kernel.sum()


@given(st.floats(0.3, 4), st.sampled_from((5, 15, 21)), st.sampled_from(("f4", "f8")))
def test_sigma_is_read_off_an_isotropic_gaussian(sigma: float, size: int, dtype: str) -> None:
    kernel = impulse_response(sigma, size).astype(dtype).astype(np.float64)
    assert sigma_of_gaussian(kernel) == pytest.approx(sigma, rel=1e-3)


@pytest.mark.parametrize(
    "kernel",
    [
        impulse_response((1.5, 2.5)),
        np.rot90(impulse_response((1.5, 1.6))),
        np.roll(impulse_response(1.5), 1, axis=0),
        np.full((5, 5), 1 / 25),
        np.eye(5) / 5,
        np.ones((1, 1)),
        0.9 * impulse_response(1.5) + 0.1 * impulse_response(3.0),
    ],
)
def test_other_kernels_have_no_sigma(kernel: np.ndarray) -> None:
    assert sigma_of_gaussian(kernel) is None


def test_gaussian8_and_given_sigmas_are_named_by_sigma() -> None:
    assert [blur.sigma for blur in BlurSet.gaussian8(3).blurs] == list(SIGMAS[3])
    found = BlurSet.gaussians((1.8, 2.65))
    assert [blur.name for blur in found.blurs] == ["sigma 1.8", "sigma 2.65"]
    np.testing.assert_allclose(kernels_of(found)[1], impulse_response(2.65), atol=1e-12)
    assert found.title == "Gaussians"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_ellipses8_keeps_the_area_and_stretches_in_eight_directions(scale: int) -> None:
    found = BlurSet.ellipses8(scale)
    assert {blur.sigma for blur in found.blurs} == {None}
    directions = []
    for kernel, sigma in zip(kernels_of(found), SIGMAS[scale], strict=True):
        (short, long), axes = np.linalg.eigh(covariance(kernel))
        # The 21 pixels cut the widest, which moves its moments a little.
        assert math.sqrt(long / short) == pytest.approx(1.5, rel=0.02)
        assert (long * short) ** 0.25 == pytest.approx(sigma, rel=0.02)
        directions.append(math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180)
    np.testing.assert_allclose(directions, 22.5 * np.arange(8), atol=1)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gaussian_aniso_draws_fkps_ellipses(scale: int) -> None:
    drawn = kernels_of(BlurSet.degradation("gaussian-aniso", scale, seed=5))
    assert len(drawn) == 8 and len({kernel.tobytes() for kernel in drawn}) == 8
    for kernel in drawn:
        assert kernel.shape == (21, 21) and kernel.sum() == pytest.approx(1)
        variances = np.linalg.eigvalsh(covariance(kernel))
        # Pixels sample the narrowest coarsely, and the window cuts the widest.
        assert 0.1 * scale < variances.min() < variances.max() < 1.02 * min(2.5 * scale, 10)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_random_draws_kernels_of_no_family(scale: int) -> None:
    drawn = np.stack(kernels_of(BlurSet.degradation("random", scale, seed=5)))
    assert drawn.shape == (8, 2 * scale + 1, 2 * scale + 1) and drawn.min() >= 0
    np.testing.assert_allclose(drawn.sum(axis=(1, 2)), 1)
    # Standard deviation over mean of U[0,1] is 1/sqrt(3), of neighbours independently.
    assert (drawn.std(axis=(1, 2)) / drawn.mean(axis=(1, 2))).mean() == pytest.approx(
        3**-0.5, abs=0.08
    )
    neighbours = np.corrcoef(drawn[:, :, 1:].ravel(), drawn[:, :, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.2


@pytest.mark.parametrize("name", ["gaussian-aniso", "random"])
def test_drawn_kernels_depend_on_the_seed(name: DegradationName) -> None:
    one, again, other = (kernels_of(BlurSet.degradation(name, 2, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.any([np.array_equal(*pair) for pair in zip(one, other, strict=True)])


def test_a_filter_has_no_kernel_and_no_sigma() -> None:
    for name in DEGRADATIONS[:3]:
        found = BlurSet.degradation(name, 4)
        (only,) = found.blurs
        assert isinstance(only, Filter)
        assert (only.name, only.sigma, only.padded(21)) == (name, None, None)
        assert found.title == name.capitalize()


@pytest.mark.parametrize(
    ("sigmas", "error", "words"),
    [
        ((), InputError, "no blur to measure"),
        ((1.8, 2.0, 1.8), InputError, "sigma 1.8 is given twice"),
        ((1.8, 0.0), KernelError, "sigma must be positive and finite, got 0"),
        ((float("nan"),), KernelError, "positive and finite, got nan"),
    ],
)
def test_unusable_sigmas_are_refused(
    sigmas: tuple[float, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        BlurSet.gaussians(sigmas)


@pytest.mark.parametrize("name", ["k.npy", "k.NPZ", "many.npz"])
def test_kernels_are_read_as_they_are_and_the_gaussians_among_them_known(
    tmp_path: Path, name: str
) -> None:
    kernels = np.stack([impulse_response((1, 3), 15), impulse_response(2.5, 15)]).astype("f4")
    with open(tmp_path / name, "wb") as file:
        if name == "k.npy":
            np.save(file, kernels)
        elif name == "k.NPZ":
            np.savez(file, anything=kernels)
        else:
            np.savez(file, kernels=kernels, angles=np.zeros(2))
    found = BlurSet.read(tmp_path / name)
    assert [blur.name for blur in found.blurs] == ["kernel 0", "kernel 1"]
    assert [blur.sigma for blur in found.blurs] == [None, pytest.approx(2.5, abs=1e-4)]
    np.testing.assert_array_equal(kernels_of(found), kernels)
    assert (found.file, found.sha256) == (name, sha256_file(tmp_path / name))
    assert found.title == f"Kernels of {name}"


def test_a_smaller_kernel_gets_zeros_around_it_and_a_larger_one_nothing() -> None:
    found = BlurSet.gaussians((2.0,))
    ((blur,), (kernel,)) = found.blurs, kernels_of(found)
    larger = blur.padded(25)
    assert larger is not None and larger.shape == (25, 25)
    np.testing.assert_array_equal(larger[2:-2, 2:-2], kernel)
    assert larger.sum() == pytest.approx(kernel.sum())
    assert blur.padded(19) is None


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((21, 21), 1 / 441), r"kernels \[N,k,k\], k odd; .* shape \[21, 21\]"),
        (np.full((1, 4, 4), 1 / 16), r"shape \[1, 4, 4\]"),
        (np.full((2, 5, 7), 1 / 35), r"shape \[2, 5, 7\]"),
        (np.zeros((0, 5, 5)), r"shape \[0, 5, 5\]"),
        (np.full((2, 5, 5), [[[1 / 25]], [[1 / 20]]]), "kernel 1 of .* sums to 1.25.* by its sum"),
        (np.full((1, 3, 3), np.nan), "kernel 0 of .* sums to nan"),
        (np.full((1, 3, 3), 1j / 9), "real numbers; it holds complex128"),
    ],
)
def test_arrays_that_are_no_kernels_are_refused(
    tmp_path: Path, array: np.ndarray, words: str
) -> None:
    np.save(tmp_path / "k.npy", array)
    with pytest.raises(KernelError, match=words):
        BlurSet.read(tmp_path / "k.npy")


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("k.mat", lambda path: path.write_bytes(b""), "not a .npy or .npz file"),
        ("k.npy", lambda path: None, "there is no kernels file"),
        ("k.npy", lambda path: path.write_bytes(b"no array"), "cannot be read as numpy arrays"),
        ("k.npy", lambda path: np.save(path, np.array([{}])), "cannot be read as numpy arrays"),
        ("k.npz", lambda path: np.savez(path, a=1, b=2), "arrays a, b; name the one .*'kernels'"),
        ("k.npz", lambda path: np.savez(path), r"the arrays \(none\)"),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    tmp_path: Path, name: str, write: Callable[[Path], object], words: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=words):
        BlurSet.read(tmp_path / name)
