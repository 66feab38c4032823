from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ikc_deploy import Bundle, BundleError, InputError, KernelError
from ikc_deploy.imaging.degrade import degrade
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.kernels import gaussian_kernel
from ikc_deploy.kernels.conventions import degrade_fkp, mean_fkp_kernel, shifted_gaussian
from ikc_deploy.runtime.nonblind import ROUNDING_NOISE, NonBlind, fitted_kernel, fkp_in_place
from tests.bundles import near_bicubic_usrnet
from tests.samples import photo

SCALE = 4


@pytest.fixture(scope="module")
def network(usrnet_bundle: Bundle) -> NonBlind:
    return NonBlind(usrnet_bundle)


def by_torch(
    lr: NDArray[np.uint8], kernel: NDArray[np.float64], noise: float = 0.0
) -> torch.Tensor:
    planes = torch.from_numpy(lr.copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        sr = near_bicubic_usrnet()(
            planes, torch.from_numpy(kernel.copy())[None], SCALE, noise / 255
        )
    return 255 * sr[0].permute(1, 2, 0).clamp(0, 1)


def test_a_frame_of_the_graphs_size_that_wraps_is_what_torch_makes_of_it(network: NonBlind) -> None:
    lr, kernel = photo(72, 64), mean_fkp_kernel(SCALE)
    for noise in (0.0, 8.0):
        image = network(lr, kernel, noise, "wrap")
        exact = by_torch(lr, kernel, noise).numpy()
        assert image.dtype == np.uint8 and image.shape == exact.shape
        assert np.abs(image - exact).max() < 0.51


@pytest.mark.parametrize("size", [(40, 30), (150, 91)])
def test_frames_of_other_sizes_are_made_of_tiles_without_a_seam(
    network: NonBlind, size: tuple[int, int]
) -> None:
    # The whole frame at once, with twice the margin, by torch.
    kernel = shifted_gaussian(8.0, 1.0, 0.4, SCALE)
    hr = photo(SCALE * size[0], SCALE * size[1], seed=3)
    lr = np.rint(degrade_fkp(hr, kernel, SCALE)).clip(0, 255).astype(np.uint8)
    image = network(lr, kernel, 0.0, "wrap")
    margin = 48
    padded = np.pad(lr, ((margin, margin), (margin, margin), (0, 0)), "wrap")
    inside = slice(SCALE * margin, -SCALE * margin)
    whole = by_torch(padded, kernel)[inside, inside].numpy()
    assert image.shape == (SCALE * size[0], SCALE * size[1], 3)
    assert np.abs(image - whole).max() < 3
    # What was degraded so comes back better than it went.
    repeated = lr.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    assert (
        np.abs(image - hr.astype(float)).mean() < 0.8 * np.abs(repeated - hr.astype(float)).mean()
    )


def diagonal(length: int) -> NDArray[np.float64]:
    return np.eye(length) / length


@pytest.mark.parametrize("kernel", [diagonal(9), diagonal(15)[::-1], diagonal(21)])
def test_a_diagonal_blur_of_a_photograph_is_undone_up_to_its_edges(
    network: NonBlind, kernel: NDArray[np.float64]
) -> None:
    """What lies beyond the picture is cut off after the blur, as by a camera's frame."""
    large = photo(4 * 88, 4 * 80, seed=5)
    lr = degrade(large, kernel, SCALE)[12:-12, 12:-12]
    hr = large[48:-48, 48:-48].astype(float)
    image = network(lr, fkp_in_place(kernel, SCALE))
    bicubic = upscale_bicubic(lr, SCALE)
    assert np.mean((image - hr) ** 2) < np.mean((bicubic - hr) ** 2)


def test_without_a_word_the_noise_is_that_of_rounding(network: NonBlind) -> None:
    lr, kernel = photo(40, 40), mean_fkp_kernel(SCALE)
    assert np.array_equal(network(lr, kernel), network(lr, kernel, ROUNDING_NOISE))
    uniform = np.random.default_rng(0).uniform(0, 255, 100_000)
    assert pytest.approx(np.std(np.rint(uniform) - uniform), rel=0.01) == ROUNDING_NOISE


@given(st.integers(0, 30), st.integers(0, 9))
def test_kernels_of_other_sizes_do_the_same(reach: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    kernel = np.pad(random.random((7, 7)), max(0, reach - 3))
    kernel /= kernel.sum()
    fitted = fitted_kernel(kernel, 45)
    assert fitted.shape == (45, 45) and fitted.dtype == np.float32
    hr = photo(24, 32, seed)
    assert np.allclose(degrade_fkp(hr, fitted, 4), degrade_fkp(hr, kernel, 4), atol=1e-3)


def test_a_kernel_of_our_convention_needs_no_moving_afterwards() -> None:
    hr, kernel = photo(96, 80), gaussian_kernel(2.2)
    ours = degrade(hr, kernel, SCALE)
    fkp = degrade_fkp(hr, fkp_in_place(kernel, SCALE), SCALE)
    inner = slice(5, -5)
    assert np.abs(fkp[inner, inner] - ours[inner, inner]).max() <= 0.51


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (np.full((4, 4), 1 / 16), "k odd"),
        (np.full((3, 5), 1 / 15), "k odd"),
        (np.full((3, 3), 1.0), "sum must be 1, got 9"),
        (np.full((3, 3), np.nan), "finite"),
        (np.full((61, 61), 1 / 61**2), "outside the 45x45"),
    ],
)
def test_a_kernel_that_is_none_is_refused(
    network: NonBlind, kernel: NDArray[np.float64], words: str
) -> None:
    with pytest.raises(KernelError, match=words):
        network(photo(40, 40), kernel)


def test_other_wrong_input_is_refused(network: NonBlind, small_bundle: Bundle) -> None:
    lr, kernel = photo(40, 40), mean_fkp_kernel(SCALE)
    with pytest.raises(InputError, match="one by one"):
        network(lr[None], kernel)
    with pytest.raises(InputError, match=r"noise must lie in \[0, 50\]"):
        network(lr, kernel, -1)
    with pytest.raises(InputError, match="border must be one of reflect, wrap"):
        network(lr, kernel, border="zero")  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"ikc-export --bundle .* --usrnet"):
        NonBlind(small_bundle)
