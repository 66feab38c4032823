"""Base class of backends with numpy arrays as buffers and synchronous graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Never, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ikc_deploy.errors import BackendError, InputError, OutOfMemoryError
from ikc_deploy.runtime.backends.base import (
    BoundGraph,
    Buffer,
    CapturedGraph,
    Event,
    Index,
    PlaneIndex,
)
from ikc_deploy.runtime.memory import available_memory


class HostBackend:
    """Buffers, copies and events in host memory; subclasses load and bind the graphs."""

    name: str
    """Name of the backend, as in `load(backend=...)`."""
    device: str
    """Human-readable name of the device."""
    default_streams = 1
    """One: each graph uses all cores, and a second frame would double the memory."""

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Allocate a numpy array."""
        try:
            return np.zeros(shape, dtype)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"not enough memory for a buffer of shape {list(shape)}; "
                "use smaller frames or tiles"
            ) from error

    def free_memory(self) -> int | None:
        """Return the free memory of the host; None if unknown, or on another device of OpenVINO."""
        return available_memory() if self.device == "cpu" else None

    def from_dlpack(self, frame: object) -> Never:
        """Raise `InputError`, because this backend only reads host memory."""
        raise InputError(
            f"a frame of type {type(frame).__name__} in GPU memory needs a backend on that GPU, "
            f"and '{self.name}' reads host memory; copy the frame to numpy, or choose another "
            "backend"
        )

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy to the buffer's array."""
        np.copyto(host_array(buffer), array, casting="no")

    def as_buffer(self, array: NDArray[Any]) -> Buffer:
        """Return the array itself."""
        return array

    def copy(self, source: Buffer, part: Index, target: Buffer, place: Index) -> None:
        """Copy between the arrays."""
        host_array(target)[place] = host_array(source)[part]

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """Return a copy of the buffer's array."""
        return host_array(buffer).copy()

    def texture(self, buffer: Buffer, plane: PlaneIndex, block: int) -> Never:  # noqa: ARG002
        """Raise `BackendError`, because there is no device memory."""
        raise BackendError(f"the backend '{self.name}' has no device memory")

    def means(
        self,
        buffer: Buffer,  # noqa: ARG002
        plane: PlaneIndex,  # noqa: ARG002
        height: int,  # noqa: ARG002
        width: int,  # noqa: ARG002
    ) -> Never:
        """Raise `BackendError`, because there is no device memory."""
        raise BackendError(f"the backend '{self.name}' has no device memory")

    def copy_to_device_array(self, buffer: Buffer) -> Never:  # noqa: ARG002
        """Raise `BackendError`, because there is no device memory."""
        raise BackendError(f"the backend '{self.name}' has no device memory")

    def create_event(self) -> Event:
        """Return an event that reads the host's clock."""
        return _HostEvent()

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return milliseconds between two events."""
        return 1e3 * (cast(_HostEvent, end).time - cast(_HostEvent, start).time)

    def capture(
        self,
        graphs: Sequence[BoundGraph],  # noqa: ARG002
        queue: Callable[[], None],  # noqa: ARG002
    ) -> CapturedGraph | None:
        """Return None: graphs run one by one."""
        return None

    def synchronize(self) -> None:
        """Do nothing, because graphs run synchronously."""


class _HostEvent:
    def __init__(self) -> None:
        self.time = 0.0

    def record(self) -> None:
        self.time = time.perf_counter()


def host_array(buffer: Buffer) -> NDArray[Any]:
    """Return a buffer of a `HostBackend` as the numpy array that it is."""
    return cast("NDArray[Any]", buffer)
