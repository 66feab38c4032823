"""The arrays of a basis file (.npz), read with bounded sizes and without pickles."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import KernelError

_ARRAYS: Final = ("components", "mean", "sigma_range")

_MAX_SIDE: Final = 127
"""Maximum side in pixels of a kernel in a file."""
_MAX_CODE: Final = 256
"""Maximum number of components of a code in a file."""
_LONGEST_HEADER: Final = 4096
"""Maximum number of bytes before an array's values in a file."""
MAX_FILE: Final = 8 * (_MAX_SIDE**2 * (_MAX_CODE + 1) + 2) + 4 * _LONGEST_HEADER
"""Maximum size of a basis file in bytes."""


def read_arrays(data: bytes) -> list[NDArray[np.floating]]:
    """Return components, mean and sigma range from the content of a basis file.

    No array is decompressed before its header shows that it is small. It also raises the
    exceptions of `zipfile` and numpy.

    Raises:
        KernelError: The content is too large, or holds other arrays.
    """
    if len(data) > MAX_FILE:
        raise KernelError(f"it has more than {MAX_FILE} bytes")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [f"{name}.npy" for name in _ARRAYS]
        if sorted(archive.namelist()) != sorted(names):
            raise KernelError(f"it must hold the arrays {', '.join(_ARRAYS)} and no others")
        return [_read_array(archive, name) for name in names]


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[np.floating]:
    with archive.open(name) as file:
        # numpy evaluates the header's text and bounds its length; here we bound what is inflated.
        start = io.BytesIO(file.read(_LONGEST_HEADER))
        version = np.lib.format.read_magic(start)
        if version != (1, 0):
            raise KernelError(f"'{name}' is of another version of the format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(start)
        largest = {
            "components.npy": (_MAX_SIDE**2, _MAX_CODE),
            "mean.npy": (_MAX_SIDE**2,),
            "sigma_range.npy": (2,),
        }[name]
        bounded = len(shape) == len(largest) and all(map(int.__le__, shape, largest))
        if not bounded or dtype.kind != "f" or dtype.itemsize > 8:
            raise KernelError(f"'{name}' holds invalid {dtype} values of shape {list(shape)}")
        size = math.prod(shape) * dtype.itemsize
        values = start.read() + file.read(max(size - _LONGEST_HEADER, 0) + _LONGEST_HEADER)
    if len(values) != size:
        raise KernelError(f"'{name}' holds {len(values)} bytes and should hold {size}")
    array = np.frombuffer(values, dtype)
    return array.reshape(shape, order="F" if fortran else "C")
