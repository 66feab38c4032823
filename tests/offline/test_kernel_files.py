from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.offline.kernel_files import padded, read_kernel
from tests.offline.test_degrading import lopsided


def test_both_kinds_of_file_give_the_kernel(tmp_path: Path) -> None:
    kernel = lopsided(7)
    np.save(tmp_path / "k.npy", kernel.astype(np.float32))
    savemat(tmp_path / "k.mat", {"Kernel": 1.005 * kernel})
    for name in ("k.npy", "k.mat"):
        found = read_kernel(tmp_path / name)
        assert found.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(found, kernel, atol=1e-8)


@pytest.mark.parametrize(
    "array,words",
    [
        (np.full((2, 2), 0.25), "k odd"),
        (np.full((1, 3, 3), 1 / 9), r"\[k,k\]"),
        (np.full((3, 3), 0.2), "sums to 1.8"),
        (np.full((3, 3), np.nan), "sums to nan"),
        (np.full((3, 3), 1j), "real numbers"),
    ],
)
def test_what_is_no_kernel_is_refused(
    tmp_path: Path, array: NDArray[np.generic], words: str
) -> None:
    np.save(tmp_path / "k.npy", array)
    with pytest.raises(KernelError, match=words):
        read_kernel(tmp_path / "k.npy")


def test_what_is_no_kernel_file_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"k": lopsided(3)})
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "damaged.mat").write_bytes(b"MATLAB")
    cases = {
        "missing.npy": "no kernel file",
        "kernel.txt": "no .npy or .mat file",
        "other.mat": "'Kernel'",
        "damaged.npy": "cannot be read",
        "damaged.mat": "cannot be read",
    }
    for name, words in cases.items():
        with pytest.raises(InputError, match=words):
            read_kernel(tmp_path / name)


def test_padding_keeps_the_middle_in_the_middle() -> None:
    kernel = lopsided(3)
    large = padded(kernel, 7)
    np.testing.assert_array_equal(large[2:5, 2:5], kernel)
    assert large.sum() == pytest.approx(1)
    assert padded(kernel, 1) is not None and padded(kernel, 1).shape == (3, 3)
