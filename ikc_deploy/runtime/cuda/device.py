"""`Device`: one GPU and its primary context, shared by everything in the process that uses it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.cuda.driver import pycuda_driver, pycuda_errors

_OPENING: Final = threading.Lock()


class Device:
    """One GPU. Get it from `open_device`: there is one object for each GPU and process.

    Its primary context stays retained until the process ends, as other libraries keep it, too.
    """

    def __init__(self, ordinal: int) -> None:
        driver = pycuda_driver()
        with pycuda_errors("start; is there an NVIDIA GPU with its driver (nvidia-smi)?"):
            driver.init()
            device = driver.Device(ordinal)
            major, minor = device.compute_capability()
            self.name: str = device.name()
            self._context = device.retain_primary_context()
        # pycuda would call the wrong function for a primary context that it finds still alive.
        weakref.finalize(self, _release, self._context)
        self.ordinal = ordinal
        self.compute_capability = f"{major}.{minor}"
        """As "8.9"."""

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current in this thread for the block; then the one before it is."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def owned(self, owner: object, things: list[Any]) -> weakref.finalize[..., Any]:
        """Call it to destroy pycuda's `things`; otherwise `owner`'s end does.

        pycuda leaks what dies while its context is not current, or in a thread that is not the
        context's: so they have to be referred to from `things` only, and are dropped from there.
        """
        return weakref.finalize(owner, _drop, self, things)

    def free_memory(self) -> tuple[int, int]:
        """Bytes of GPU memory that are free, and all."""
        with self.current(), pycuda_errors("ask for its free memory"):
            free, total = pycuda_driver().mem_get_info()
        return int(free), int(total)


def open_device(ordinal: int = 0) -> Device:
    """The GPU with this number among those that CUDA_VISIBLE_DEVICES shows.

    Raises `BackendError` without pycuda, a driver or such a GPU.
    """
    with _OPENING:
        return _open(ordinal)


@cache
def _open(ordinal: int) -> Device:
    if ordinal < 0:
        raise BackendError(f"GPUs are numbered from 0, got {ordinal}")
    return Device(ordinal)


def _release(context: Any) -> None:
    context.push()
    context.detach()


def _drop(device: Device, things: list[Any]) -> None:
    with device.current():
        things.clear()
