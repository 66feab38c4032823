"""`Device`: one GPU and its primary context, which all libraries in the process share."""

from __future__ import annotations

import os
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

    Its primary context stays retained until the process ends, because other libraries use it, too.

    Args:
        ordinal: Index of the GPU, from 0.

    Raises:
        BackendError: pycuda, the driver or the GPU is missing.
    """

    def __init__(self, ordinal: int) -> None:
        driver = pycuda_driver()
        with pycuda_errors("start; is there an NVIDIA GPU with its driver (nvidia-smi)?"):
            driver.init()
            count = driver.Device.count()
            if ordinal >= count:
                raise BackendError(
                    f"there are {count} GPUs, numbered from 0, and none is {ordinal}; choose "
                    "another device"
                )
            device = driver.Device(ordinal)
            major, minor = device.compute_capability()
            self.name: str = device.name()
            self._context = device.retain_primary_context()
        # At exit, pycuda would call the wrong function for a primary context that is still alive.
        weakref.finalize(self, _release, self._context, os.getpid())
        self.ordinal = ordinal
        self._process = os.getpid()
        self.compute_capability = f"{major}.{minor}"
        """Compute capability, for example "8.9"."""

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread for the block, then restore the previous one.

        Raises:
            BackendError: The process was forked after the device was opened.
        """
        if self.forked:
            raise BackendError(
                "CUDA cannot be used in a process that was forked after its first use; start "
                'workers with multiprocessing.get_context("spawn"), or load the bundle in them only'
            )
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that opened the device."""
        return os.getpid() != self._process

    def owned(self, owner: object, things: list[Any]) -> weakref.finalize[..., Any]:
        """Return a function that destroys objects of pycuda; it also runs when `owner` is dropped.

        pycuda leaks objects that are destroyed while their context is not current, or in a thread
        other than the context's. So only `things` may refer to them, and they are dropped from it.

        Args:
            owner: The object that owns them.
            things: The objects; no other references may exist.

        Returns:
            The finalizer.
        """
        return weakref.finalize(owner, _drop, self, things)

    def free_memory(self) -> tuple[int, int]:
        """Return the free and the total GPU memory in bytes.

        Raises:
            BackendError: The driver refuses.
        """
        with self.current(), pycuda_errors("ask for its free memory"):
            free, total = pycuda_driver().mem_get_info()
        return int(free), int(total)


def open_device(ordinal: int = 0) -> Device:
    """Return a GPU, the same object every time.

    Args:
        ordinal: Index of the GPU, from 0, among those that CUDA_VISIBLE_DEVICES shows.

    Returns:
        The device; it lives until the process ends.

    Raises:
        BackendError: pycuda, the driver or the GPU is missing.
    """
    with _OPENING:
        return _open(ordinal)


@cache
def _open(ordinal: int) -> Device:
    if ordinal < 0:
        raise BackendError(f"GPUs are numbered from 0, got {ordinal}")
    return Device(ordinal)


def _release(context: Any, process: int) -> None:
    if os.getpid() == process:
        context.push()
        context.detach()


def _drop(device: Device, things: list[Any]) -> None:
    if device.forked:
        # The objects are the parent's: destroying them here would use its context.
        _OF_THE_PARENT.extend(things)
        return
    with device.current():
        things.clear()


_OF_THE_PARENT: Final[list[Any]] = []
