"""Sums over blocks of one plane of a frame in GPU memory, by two small kernels.

Sums are integers: of uint8 frames they are exact, and float32 values are rounded to 2^-20 of an
8-bit level. So they do not depend on the order in which threads add. `plane_sums.cu` is the source
of the kernels; the driver compiles its PTX for the GPU when a frame first needs it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.runtime.backends.base import PlaneIndex
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.driver import checked, cuda_bindings
from ikc_deploy.runtime.cuda.streams import CudaStream

Quantity = Literal["levels", "steps"]
"""What is summed: 8-bit levels, or texture (see `ikc_deploy.runtime.frame_plane`)."""

_THREADS: Final = 128
"""Number of threads in a block of the GPU."""

_FIXED_POINT: Final = 2**20
"""Number by which the kernels multiply float values before they are rounded."""

_LOADING: Final = threading.Lock()


class Pixels(Protocol):
    """Frames in device memory."""

    @property
    def address(self) -> int:
        """Address of the first entry."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a plane, as many as fit."""

    plane: PlaneIndex
    """The plane."""
    height: int
    """Height of a block in pixels; of steps, a multiple of 4."""
    width: int
    """Width of a block in pixels; of steps, a multiple of 4."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns of blocks."""
        return self.plane.height // self.height, self.plane.width // self.width

    def threads(self, quantity: Quantity) -> int:
        """Return the number of threads that a kernel needs: one for each line of each block."""
        rows, columns = self.shape
        if quantity == "levels":
            return rows * columns * self.height
        return rows * columns * (self.height // 4 + self.width // 4)


def queue_sums(
    quantity: Quantity, frames: Pixels, blocks: Blocks, sums: DeviceBuffer, stream: CudaStream
) -> None:
    """Queue a kernel that computes a sum for each block.

    Args:
        quantity: What is summed.
        frames: The frames of the plane.
        blocks: The blocks, at least one.
        sums: Memory for a uint64 for each block.
        stream: Stream on which the kernel runs.

    Raises:
        BackendError: The driver refuses.
    """
    stream.clear(sums)
    plane = blocks.plane
    # `PlaneCells` in plane_sums.cu.
    cells = np.array(
        [
            frames.address + plane.offset * frames.dtype.itemsize,
            sums.address,
            frames.dtype != np.uint8,
            plane.row_stride,
            plane.column_stride,
            *blocks.shape,
            blocks.height,
            blocks.width,
        ],
        np.int64,
    )
    arguments = np.array([cells.ctypes.data], np.uint64)
    grid = (-(-blocks.threads(quantity) // _THREADS), 1, 1)
    with stream.device.current():
        kernel = _kernels(stream.device)[quantity]
        answer = cuda_bindings().cuLaunchKernel(
            kernel, *grid, *(_THREADS, 1, 1), 0, stream.handle, arguments.ctypes.data, 0
        )
        checked(answer, "find the texture of a frame")


def sums_in_levels(
    sums: NDArray[np.uint64], frames: Pixels, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return downloaded sums `[rows, columns]` in 8-bit levels."""
    scale = 1 if frames.dtype == np.uint8 else _FIXED_POINT
    return (sums.reshape(shape) / scale).astype(np.float32)


def _kernels(device: Device) -> dict[Quantity, Any]:
    with _LOADING:
        return _load(device)


@cache
def _load(device: Device) -> dict[Quantity, Any]:  # noqa: ARG001 - its context is current
    """Return the kernels; like the device, they live until the process ends."""
    bindings = cuda_bindings()
    # The driver expects a C string.
    ptx = files(__package__).joinpath("plane_sums.ptx").read_bytes() + b"\0"
    module = checked(bindings.cuModuleLoadData(ptx), "compile a kernel")
    names: dict[Quantity, bytes] = {"levels": b"sum_levels", "steps": b"sum_steps"}
    return {
        quantity: checked(bindings.cuModuleGetFunction(module, name), "find a kernel")
        for quantity, name in names.items()
    }
