"""pycuda and cuda-bindings: imported when asked for, and their failures as `BackendError`."""

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
    """The module `pycuda.driver`. Raises `BackendError` if it is not there or finds no driver."""
    return _import("pycuda.driver")


def cuda_bindings() -> Any:
    """The module `cuda.bindings.driver`. Raises `BackendError` if it is not there."""
    return _import("cuda.bindings.driver")


def memory_view() -> Any:
    """cuda-core's `StridedMemoryView`. Raises `BackendError` if it is not there."""
    return _import("cuda.core.utils").StridedMemoryView


def checked(answer: tuple[Any, ...], doing: str) -> Any:
    """What a call of cuda-bindings returned beside its status: nothing, one value, or a tuple.

    Raises `BackendError` that says what was being done if the status is not success.
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
    """Turns what pycuda raises into `BackendError` that says what was being done."""
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
            # pycuda says twice what its exception says: once as a warning.
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
        # As when libcuda.so.1 is missing.
        raise BackendError(f"{name} does not load, so there is no GPU here: {error}") from error
