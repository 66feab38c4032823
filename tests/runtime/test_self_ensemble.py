"""The mean over flips and rotations, against the same written with numpy's rotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ikc_deploy
from ikc_deploy import Bundle, InputError, KernelBasis, Upscaler
from ikc_deploy.imaging.degrade import degrade
from ikc_deploy.kernels import anisotropic_kernel
from ikc_deploy.runtime.self_ensemble import SYMMETRIES
from tests.bundles import export_small
from tests.samples import photo

ELLIPTIC = KernelBasis.fit((0.6, 4.0), 40, family="anisotropic")


class EllipticBundle(Bundle):
    """A bundle whose codes are read by a basis of ellipses."""

    basis = KernelBasis.fit((0.6, 4.0), 10, family="anisotropic")


def turned(image: np.ndarray, number: int, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    """The image rotated `number` quarters, from 4 on also mirrored."""
    rotated = np.rot90(image, number % 4, axes)
    return np.ascontiguousarray(np.flip(rotated, axes[1]) if number >= 4 else rotated)


def turned_back(image: np.ndarray, number: int, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    plain = np.flip(image, axes[1]) if number >= 4 else image
    return np.rot90(plain, -(number % 4), axes)


def expected(
    upscaler: Upscaler, frame: np.ndarray, code: np.ndarray, axes: tuple[int, int] = (0, 1)
) -> np.ndarray:
    """The mean image of a frame under a code, in float64."""
    basis = upscaler.bundle.basis
    images = []
    for number in range(8):
        other = code
        if basis.elliptic:
            kernel = turned(basis.decode(code), number).astype(np.float64)
            other = (basis.components.astype(np.float64).T @ kernel.ravel()).astype(np.float32)
        image = upscaler(turned(frame, number, axes), code=other).image
        images.append(turned_back(image.astype(np.float64), number, axes))
    return np.mean(images, axis=0)


def rounded(mean: np.ndarray) -> np.ndarray:
    return np.rint(mean).astype(np.uint8)


def load(bundle: Bundle, **options: Any) -> Upscaler:
    return ikc_deploy.load(bundle, "onnxruntime", 2, threads=1, **options)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"estimate": "crops"},
        {"estimate": "track"},
        {"sigma": 2.0},
        {"options": {"tile": 64}},
        {"options": {"early_stop": 9e9}},
    ],
)
def test_it_is_the_mean_under_the_code_of_the_frame(
    small_bundle: Bundle, call: dict[str, Any]
) -> None:
    frame, options = photo(60, 72), call.get("options", {})
    chosen = {name: value for name, value in call.items() if name != "options"}
    with load(small_bundle, **options) as plain:
        code = plain(frame, **chosen).codes[-1]
        wanted = rounded(expected(plain, frame, code))
    with load(small_bundle, self_ensemble=True, **options) as upscaler:
        result = upscaler(frame, **chosen)
    assert np.array_equal(result.codes[-1], code)
    assert np.array_equal(result.image, wanted)
    assert not np.array_equal(result.image, upscaler_image(small_bundle, frame, code))


def upscaler_image(bundle: Bundle, frame: np.ndarray, code: np.ndarray) -> np.ndarray:
    with load(bundle) as plain:
        image: np.ndarray = plain(frame, code=code).image
        return image


def test_steps_batches_and_float_frames(tmp_path: Path) -> None:
    bundle = export_small(tmp_path, "film", io="float")
    frames = np.stack([photo(24, 33), photo(24, 33, seed=1)]).transpose(0, 3, 1, 2) / np.float32(
        255
    )
    with load(bundle, self_ensemble=True) as upscaler, load(bundle) as plain:
        result = upscaler(frames, steps=True)
        assert len(result.steps) == len(result.codes) == 3
        for image, codes in zip(result.steps, result.codes, strict=True):
            assert image.dtype == np.float32 and image.shape == (2, 3, 96, 132)
            for each, frame, code in zip(image, frames, codes, strict=True):
                wanted = expected(plain, frame, code, axes=(1, 2))
                np.testing.assert_allclose(each, wanted, atol=1e-6)
        assert np.array_equal(result.image, result.steps[-1])
        first = next(iter(upscaler.stream(iter(frames), estimate="crops")))
        one = upscaler.submit(frames[0]).result()
        np.testing.assert_allclose(one.image, result.image[0], atol=1e-6)
        assert first.image.shape == (3, 96, 132)


def test_elliptic_codes_are_turned_with_the_frame(small_bundle: Bundle) -> None:
    bundle = EllipticBundle(small_bundle.path, small_bundle.manifest, small_bundle.files)
    frame = photo(40, 56)
    code = bundle.basis.encode(anisotropic_kernel(1.2, 3.4, 0.5))
    with load(bundle, self_ensemble=True) as upscaler, load(bundle) as plain:
        assert bundle.basis.elliptic
        wanted = rounded(expected(plain, frame, code))
        assert np.array_equal(upscaler(frame, code=code).image, wanted)


@given(st.floats(0.7, 3.9), st.floats(0.7, 3.9), st.floats(0, 3.1), st.sampled_from(SYMMETRIES))
def test_the_code_of_a_turned_frame_is_that_of_its_own_kernel(
    sigma1: float, sigma2: float, theta: float, symmetry: Any
) -> None:
    kernel = anisotropic_kernel(sigma1, sigma2, theta)
    found = ELLIPTIC.decode(symmetry.codes(ELLIPTIC, ELLIPTIC.encode(kernel)))
    # Of the family: the angle of the turned ellipse, from its own formula.
    angle = -theta if symmetry.flips_rows != symmetry.flips_columns else theta
    angle = np.pi / 2 - angle if symmetry.transposes else angle
    wanted = ELLIPTIC.decode(ELLIPTIC.encode(anisotropic_kernel(sigma1, sigma2, angle)))
    assert np.abs(found - wanted).max() < 0.02 * wanted.max()


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_degraded_turned_image_is_the_turned_degraded_image(symmetry: Any) -> None:
    image, kernel = photo(48, 64), anisotropic_kernel(1.2, 3.4, 0.5)
    one = symmetry.apply(degrade(image, kernel, 4), 0, 1)
    other = degrade(
        np.ascontiguousarray(symmetry.apply(image, 0, 1)), symmetry.apply(kernel, 0, 1), 4
    )
    assert np.abs(one.astype(int) - other).max() <= 1
    assert np.array_equal(symmetry.undo(symmetry.apply(image, 0, 1), 0, 1), image)


def test_values_that_are_no_booleans_are_refused(small_bundle: Bundle) -> None:
    for wrong in (1, "yes", None):
        with pytest.raises(InputError, match="self_ensemble must be True or False"):
            ikc_deploy.load(small_bundle, self_ensemble=wrong)  # type: ignore[arg-type]
    with ikc_deploy.load(small_bundle, "onnxruntime") as upscaler:
        backend = upscaler.backend
        with pytest.raises(InputError, match="self_ensemble must be True or False"):
            Upscaler(small_bundle, backend, self_ensemble=1)  # type: ignore[arg-type]
