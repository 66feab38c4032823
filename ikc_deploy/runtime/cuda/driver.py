"""pycuda and cuda-bindings: imported on first use, with their errors as `BackendError`."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ikc_deploy.errors import BackendError, OutOfMemoryError

_FIX: Final = {
    "pycuda": "pip install 'pycuda>=2025.1,<2027'",
    "cuda.bindings": "pip install 'cuda-bindings>=12.9,<14'",
    "cuda.core": "pip install 'cuda-core>=1,<2'",
}


def pycuda_driver() -> Any:
    """Import and return `pycuda.driver`.

    Raises:
        BackendError: pycuda is not installed, or finds no driver.
    """
    return _import("pycuda.driver")


def cuda_bindings() -> Any:
    """Import and return `cuda.bindings.driver`.

    Raises:
        BackendError: cuda-bindings is not installed or does not load.
    """
    return _import("cuda.bindings.driver")


def memory_view() -> Any:
    """Import and return cuda-core's `StridedMemoryView`.

    Raises:
        BackendError: cuda-core is not installed or does not load.
    """
    return _import("cuda.core.utils").StridedMemoryView


def checked(answer: tuple[Any, ...], doing: str) -> Any:
    """Return the result of a call of cuda-bindings without its status.

    Args:
        answer: The status and the values that the call returned.
        doing: Description of the call for the message, as an infinitive.

    Returns:
        None, one value, or a tuple of several values.

    Raises:
        BackendError: The status is not success.
    """
    status, *values = answer
    if status.value != 0:
        bindings = cuda_bindings()
        _, name = bindings.cuGetErrorName(status)
        _, text = bindings.cuGetErrorString(status)
        said = ": ".join(part.decode() for part in (name, text) if part)
        raise BackendError(f"CUDA refuses to {doing}: {said or f'error {status.value}'}")
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


@contextmanager
def pycuda_errors(doing: str) -> Iterator[None]:
    """Turn errors of pycuda in the block into errors that state what was being done.

    Args:
        doing: Description of the block for the message, as an infinitive.

    Raises:
        OutOfMemoryError: The device has too little memory.
        BackendError: pycuda raised another error.
    """
    driver = pycuda_driver()
    try:
        yield
    except driver.MemoryError as error:
        raise OutOfMemoryError(
            f"not enough GPU memory to {doing}; use smaller frames or tiles ({error})"
        ) from error
    except driver.Error as error:
        raise BackendError(f"CUDA refuses to {doing}: {error}") from error


def _import(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            # pycuda repeats the message of its exception as a warning.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        module = ".".join(name.split(".")[:2]) if name.startswith("cuda.") else "pycuda"
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise BackendError(f"{module} does not load: {error}; run: {_FIX[module]}") from error
        raise BackendError(
            f"a GPU needs the module {module}, which is not installed; run: {_FIX[module]}"
        ) from error
    except ImportError as error:
        # For example if libcuda.so.1 is missing.
        raise BackendError(f"{name} does not load, so there is no GPU here: {error}") from error
