"""One blur kernel from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError, KernelError, MissingExtraError

SUFFIXES: Final = (".npy", ".mat")
_MATLAB_NAME: Final = "Kernel"
_SUM_TOLERANCE: Final = 1e-2


def read_kernel(path: Path) -> NDArray[np.float64]:
    """The kernel `[k,k]` of an .npy file, or of `Kernel` in a MATLAB file; divided by its sum.

    Raises `InputError` for a file that is missing, of another type or damaged, `KernelError` for
    an array that is not a square of real numbers with an odd side and a sum of 1 (within 1 %).
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"'{path}' is no {' or '.join(SUFFIXES)} file; save the kernel as one")
    if not path.is_file():
        raise InputError(f"there is no kernel file '{path}'")
    try:
        found = _read_matlab(path) if path.suffix.lower() == ".mat" else np.load(path)
    except (InputError, MissingExtraError):
        raise
    except Exception as error:  # numpy and scipy raise half a dozen types for damaged files
        raise InputError(f"'{path}' cannot be read as an array: {error}") from error
    return _check(found, path)


def padded(kernel: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """`kernel` with zeros around it, `[size,size]`; as it is if it is as large already."""
    return np.pad(kernel, max(0, (size - len(kernel)) // 2))


def _read_matlab(path: Path) -> NDArray[Any]:
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "offline", "a MATLAB file") from error
    arrays = loadmat(path)
    if _MATLAB_NAME not in arrays:
        raise InputError(f"'{path}' has no array '{_MATLAB_NAME}'; save the kernel as .npy instead")
    return np.asarray(arrays[_MATLAB_NAME])


def _check(kernel: NDArray[Any], path: Path) -> NDArray[np.float64]:
    shape = kernel.shape
    if kernel.ndim != 2 or shape[0] != shape[1] or shape[0] % 2 == 0:
        raise KernelError(f"'{path}' must hold a kernel [k,k], k odd; it holds {list(shape)}")
    if kernel.dtype.kind not in "fiu":
        raise KernelError(f"'{path}' must hold real numbers; it holds {kernel.dtype}")
    kernel = kernel.astype(np.float64)
    if not abs(kernel.sum() - 1) <= _SUM_TOLERANCE:
        raise KernelError(f"the kernel of '{path}' sums to {kernel.sum():g}; divide it by its sum")
    return kernel / kernel.sum()
