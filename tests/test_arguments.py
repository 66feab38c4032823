from __future__ import annotations

from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ikc_deploy
from ikc_deploy import Bundle, IkcError, InputError, KernelError, Postprocessing, Upscaler
from ikc_deploy.kernels import KernelBasis, anisotropic_kernel, gaussian_kernel
from ikc_deploy.runtime.nonblind import NonBlind
from ikc_deploy.runtime.tiling import TileSettings
from tests.samples import photo
from tests.sealing import BASIS

NONSENSE: list[Any] = [
    "7",
    "",
    b"x",
    -1,
    2.5,
    float("nan"),
    float("inf"),
    True,
    1j,
    object(),
    [],
    [1, [2]],
    ["a"],
    {"a": 1},
    np.array([1, 2]),
    np.array(["a"]),
    np.full((3, 3), np.nan),
    np.zeros((2, 0)),
    np.array([None]),
    Fraction(-1, 2),
    lambda: None,
]


@pytest.fixture(scope="module")
def upscaler(bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(bundle, iters=0, threads=1)


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["iters", "estimate", "tile", "max_memory", "streams"])
def test_load_refuses_nonsense_in_a_sentence(bundle: Bundle, name: str, value: Any) -> None:
    with pytest.raises(IkcError, match=f"{name} must be .*got "):
        ikc_deploy.load(bundle, threads=1, **{name: value})


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
def test_other_arguments_of_load_too(bundle: Bundle, value: Any) -> None:
    with pytest.raises(IkcError, match="invalid backend"):
        ikc_deploy.load(bundle, value)
    with pytest.raises(IkcError, match="threads must be"):
        ikc_deploy.load(bundle, threads=value)
    if not isinstance(value, str):
        with pytest.raises(IkcError, match="a bundle is a folder"):
            ikc_deploy.load(value)


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["sigma", "kernel", "code", "estimate"])
def test_a_call_refuses_nonsense(upscaler: Upscaler, name: str, value: Any) -> None:
    if name == "sigma" and isinstance(value, float) and value == 2.5:
        return
    with pytest.raises((InputError, KernelError)):
        upscaler(photo(12, 12), **{name: value})


@pytest.mark.parametrize(
    "value",
    [*NONSENSE, None, [[[1, 2, 3]]], photo(9, 9).tolist()],
    ids=lambda value: type(value).__name__,
)
def test_a_call_refuses_what_is_no_frame(upscaler: Upscaler, value: Any) -> None:
    with pytest.raises(InputError, match=r"a frame|uint8 frames"):
        upscaler(value)
    with pytest.raises(InputError):
        upscaler.submit(value).result()
    with pytest.raises(InputError):
        list(upscaler.stream(cast(Any, value if isinstance(value, int | float) else [value])))


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
def test_constructors_refuse_nonsense(upscaler: Upscaler, bundle: Bundle, value: Any) -> None:
    with pytest.raises(InputError, match="bundle must be an opened Bundle"):
        Upscaler(value, upscaler.backend)
    with pytest.raises(InputError, match="expected an opened backend"):
        Upscaler(bundle, value)
    with pytest.raises(InputError, match="bundle must be an opened Bundle"):
        NonBlind(value)
    with pytest.raises(InputError, match="size must be 2 whole numbers"):
        Postprocessing(size=value)
    if not isinstance(value, list) or value:
        with pytest.raises(InputError, match="expected an opened backend"):
            Upscaler(bundle, upscaler.backend, others=value)
    if not isinstance(value, str):
        with pytest.raises(InputError, match="the folder of a bundle must be"):
            Bundle.open(value)
        # True is the descriptor of standard output for open().
        for call in (KernelBasis.load, BASIS.save):
            with pytest.raises(KernelError, match="the file of a basis must be"):
                call(value)
    for name in ("sigma_range", "code_size", "size", "family"):
        if name == "sigma_range" and isinstance(value, np.ndarray) and value.dtype.kind == "i":
            continue
        with pytest.raises(KernelError):
            KernelBasis.fit(**{"sigma_range": (0.2, 2.0), name: value})


def test_the_basis_refuses_nonsense() -> None:
    for value in NONSENSE:
        if value is NONSENSE[4] or (isinstance(value, np.ndarray) and value.dtype.kind == "i"):
            continue  # sigmas
        for call in (BASIS.code_of_sigma, BASIS.encode, BASIS.decode, gaussian_kernel):
            with pytest.raises(KernelError):
                call(value)
    for size in (0, 4, "21", 2.5, None):
        with pytest.raises(KernelError, match="size must be odd"):
            gaussian_kernel(1.0, size)  # type: ignore[arg-type]


def motion(length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.pad(np.eye(length) / length, (21 - length) // 2)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (2 * gaussian_kernel(1.5), "sum must be 1, got 2"),
        (-gaussian_kernel(1.5), "sum must be 1, got -1"),
        (np.full((21, 21), np.inf), "finite"),
        (3 * gaussian_kernel(0.3) - 2 * gaussian_kernel(1.0), "must not be negative"),
        (motion(9), r"nearest kernel of its basis is \d+% off, and 15% is the limit.*--kernel"),
        (np.roll(gaussian_kernel(1.5), 3, 1), "% off"),
        (np.stack([gaussian_kernel(2.0), motion(21)]), "% off"),
    ],
)
def test_a_kernel_that_the_network_does_not_know_is_refused(
    upscaler: Upscaler, kernel: Any, words: str
) -> None:
    frames = np.stack([photo(12, 12)] * 2) if kernel.ndim == 3 else photo(12, 12)
    with pytest.raises(KernelError, match=words):
        upscaler(frames, kernel=kernel)


@given(st.floats(0.2, 4.0))
def test_kernels_and_codes_of_the_basis_are_taken(sigma: float) -> None:
    from ikc_deploy.kernels.kernel_checks import (
        MAX_LOST,
        MAX_NEGATIVE,
        check_kernels,
        projection_error,
    )

    for basis in (BASIS, ELLIPTIC):
        decoded = basis.decode(basis.code_of_sigma(sigma)).astype(np.float64)
        for kernel in (gaussian_kernel(sigma), decoded):
            check_kernels(kernel, MAX_NEGATIVE)
            assert projection_error(kernel, basis, 4) < MAX_LOST
    stretched = anisotropic_kernel(sigma, max(0.4, sigma / 1.5), 0.7)
    assert projection_error(stretched, ELLIPTIC, 4) < MAX_LOST


ELLIPTIC = KernelBasis.fit((0.2, 4.0), 30, family="anisotropic")


def test_codes_that_stand_for_no_blur_are_refused(upscaler: Upscaler) -> None:
    for code, words in (
        (np.full(10, np.nan), "finite"),
        (np.full(10, 1e3), "length"),
        (np.zeros(9), "one blur"),
        ("abc", "real numbers"),
    ):
        with pytest.raises(InputError, match=words):
            upscaler(photo(12, 12), code=code)


def test_known_kernels_refuse_nonsense(usrnet_bundle: Bundle) -> None:
    with NonBlind(usrnet_bundle, 1) as network:
        for value in NONSENSE:
            with pytest.raises(IkcError):
                network(photo(12, 12), value)
            with pytest.raises(IkcError):
                network(value, gaussian_kernel(1.0))
            with pytest.raises(IkcError):
                network(photo(12, 12), gaussian_kernel(1.0), border=value)
            if value not in ([], 2.5) if isinstance(value, int | float | list) else True:
                with pytest.raises(IkcError, match=r"noise must lie in \[0, 50\] levels, got"):
                    network(photo(12, 12), gaussian_kernel(1.0), value)
    with pytest.raises(IkcError, match="threads must be"):
        NonBlind(usrnet_bundle, "2")  # type: ignore[arg-type]


def test_tiles_are_taken_as_any_whole_number() -> None:
    assert TileSettings(cast(int, np.int64(64)), cast(int, np.int32(10))).tile == 64
