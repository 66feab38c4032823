from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import io, ndimage, optimize

from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.imaging.degrade import blur
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.kernels import (
    FKP_SCALES,
    anisotropic_kernel,
    degrade_fkp,
    fkp_size,
    fkp_variances,
    gaussian_kernel,
    lag,
    mean_fkp_kernel,
    random_fkp_kernels,
    shifted_gaussian,
    to_fkp,
    to_ours,
)

INSIDE = (slice(10, -10), slice(10, -10))
"""LR pixels that no border reaches."""

SCALE = st.sampled_from(FKP_SCALES)


@pytest.fixture(scope="module")
def photo(repository: Path) -> NDArray[np.uint8]:
    return read_rgb(repository / "samples" / "kodim23.png")[100:340, 200:500]


def moved(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The picture that the FKP convention makes the same LR picture of."""
    return np.roll(hr, (-lag(scale), -lag(scale)), (0, 1))


def psnr(image: NDArray[np.float64], reference: NDArray[np.float64] | NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((image - reference)[INSIDE] ** 2)))


def test_the_references_picture_and_kernel_make_its_lr_picture(shared: Path) -> None:
    folder = shared / "official_fkp" / "test_image"
    hr = read_rgb(folder / "HR" / "102061.png")[:480, :320]
    lr = read_rgb(folder / "DIPFKP_lr_x4" / "102061.png")
    kernel = io.loadmat(folder / "DIPFKP_gt_k_x4" / "102061.mat")["Kernel"]
    # The reference cuts the fraction off.
    rest = np.clip(degrade_fkp(hr, kernel, 4), 0, 255) - lr
    assert rest.min() > -1e-3 and rest.max() < 1
    assert np.any(np.abs(degrade_fkp(hr, kernel[::-1, ::-1], 4) - lr) > 50)


def test_the_references_picture_lies_where_the_lag_says(shared: Path) -> None:
    folder = shared / "official_fkp" / "test_image"
    hr = read_rgb(folder / "HR" / "102061.png")[:480, :320]
    upscaled = resize_bicubic(read_rgb(folder / "DIPFKP_lr_x4" / "102061.png"), 4)
    likeness = {move: psnr(upscaled, np.roll(hr, (move, move), (0, 1))) for move in range(-4, 5)}
    assert max(likeness, key=likeness.__getitem__) == lag(4)
    assert likeness[lag(4)] > likeness[0] + 2.5


def test_the_references_kernel_is_one_of_the_family(shared: Path) -> None:
    file = shared / "official_fkp" / "test_image" / "DIPFKP_gt_k_x4" / "102061.mat"
    kernel = io.loadmat(file)["Kernel"]

    def difference(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        along, across, theta = parameters
        return (shifted_gaussian(along, across, theta, 4) - kernel).ravel()

    fit = optimize.least_squares(
        difference,
        (5.0, 2.0, 2.0),
        bounds=((0.5, 0.5, 0), (11, 11, np.pi)),
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    low, high = fkp_variances(4)
    assert low < min(fit.x[:2]) and max(fit.x[:2]) < high
    assert np.abs(fit.fun).max() < 1e-12


@given(scale=SCALE, first=st.floats(0, 1), second=st.floats(0, 1), theta=st.floats(0, np.pi))
def test_the_family_is_moved_as_splines_of_scipy_move_it(
    scale: int, first: float, second: float, theta: float
) -> None:
    (low, high), size = fkp_variances(scale), fkp_size(scale)
    along, across = (low + share * (high - low) for share in (first, second))
    rotation = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    inverse = np.linalg.inv(rotation @ np.diag([along, across]) @ rotation.T)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2 - (scale - 1) / 2
    z = np.stack((x, y), axis=-1)
    raw = np.exp(-0.5 * np.einsum("ijk,kl,ijl->ij", z, inverse, z))
    place = (size - scale) / 2
    expected = ndimage.shift(raw, place - np.array(ndimage.center_of_mass(raw)))
    found = shifted_gaussian(along, across, theta, scale)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize("scale", FKP_SCALES)
def test_random_kernels_are_seeded_and_make_up_the_mean(scale: int) -> None:
    kernels = random_fkp_kernels(np.random.default_rng(3), 4000, scale)
    size = 4 * scale + 3
    assert kernels.shape == (4000, size, size)
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1)
    mean = mean_fkp_kernel(scale)
    assert mean.sum() == pytest.approx(1)
    assert np.abs(kernels.mean(axis=0) - mean).max() < 0.04 * mean.max()
    again = random_fkp_kernels(np.random.default_rng(3), 4000, scale)
    np.testing.assert_array_equal(kernels, again)
    assert np.all(kernels > -1e-3 * kernels.max(axis=(1, 2), keepdims=True))


@pytest.mark.parametrize("scale", FKP_SCALES)
@pytest.mark.parametrize("sigmas", [(0.3, 0.5), (1.2, 2.4), (2.0, 3.9)])
def test_our_blur_and_shrinking_are_one_kernel_of_fkp(
    photo: NDArray[np.uint8], scale: int, sigmas: tuple[float, float]
) -> None:
    kernel = anisotropic_kernel(*sigmas, 0.6)
    ours = resize_bicubic(blur(photo, kernel), 1 / scale)
    theirs = degrade_fkp(moved(photo, scale), to_fkp(kernel, scale), scale)
    np.testing.assert_allclose(theirs[INSIDE], ours[INSIDE], atol=1e-9)


@pytest.mark.parametrize("scale", FKP_SCALES)
def test_a_kernel_of_fkp_does_the_same_as_one_of_ours(photo: NDArray[np.uint8], scale: int) -> None:
    for variance in (scale, 2 * scale):
        kernel = shifted_gaussian(variance, 1.5 * variance, 0.4, scale)
        ours, error = to_ours(kernel, scale)
        assert error < 0.02
        assert ours.shape == (21, 21) and ours.sum() == pytest.approx(1)
        lr = resize_bicubic(blur(photo, ours), 1 / scale)
        assert psnr(degrade_fkp(moved(photo, scale), kernel, scale), lr) > 60


@pytest.mark.parametrize("scale", FKP_SCALES)
def test_the_way_there_and_back_ends_where_it_began(scale: int) -> None:
    kernel = gaussian_kernel(0.75 * scale)
    back, error = to_ours(to_fkp(kernel, scale), scale)
    assert error < 1e-3
    assert np.abs(back - kernel).max() < 0.03 * kernel.max()


def test_a_blur_narrower_than_the_bicubic_filter_is_told_by_its_error() -> None:
    narrow, _ = fkp_variances(4)
    _, error = to_ours(shifted_gaussian(narrow, narrow, 0, 4), 4)
    assert error > 0.3


def test_a_kernel_wider_than_the_picture_wraps_around() -> None:
    hr = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    kernel = np.random.default_rng(1).random((15, 15))
    expected = ndimage.correlate(hr.astype(float), kernel[:, :, None], mode="wrap")[::3, ::3]
    np.testing.assert_allclose(degrade_fkp(hr, kernel, 3), expected, atol=1e-9)


def test_what_makes_no_sense_is_refused() -> None:
    hr = np.zeros((8, 10, 3), np.uint8)
    with pytest.raises(InputError, match="multiples of 4, got 10x8"):
        degrade_fkp(hr, gaussian_kernel(1, 5), 4)
    for kernel in (np.ones((4, 4)), np.ones((3, 5)), np.ones(9)):
        with pytest.raises(KernelError, match="square with an odd side"):
            degrade_fkp(hr, kernel, 2)
        with pytest.raises(KernelError, match="square with an odd side"):
            to_ours(kernel, 2)
    with pytest.raises(KernelError, match="scale 2, 3 and 4, got 8"):
        random_fkp_kernels(np.random.default_rng(0), 1, 8)
    for along, across, theta in ((0, 1, 0), (1, -1, 0), (np.nan, 1, 0), (1, 1, np.inf)):
        with pytest.raises(KernelError):
            shifted_gaussian(along, across, theta, 2)
