"""Which arrays are frames, and what is wrong with those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import FrameIO
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.backends.base import Backend, Buffer, DeviceFrames

Frames = NDArray[Any] | DeviceFrames
"""A frame or a batch of them, in host memory or on the backend's device."""

_HOST_MEMORY: Final = (1, 3)
"""DLPack's device types of memory that the CPU can read: kDLCPU and kDLCUDAHost."""

MIN_SIDE: Final = 8
"""Frames with a shorter side are refused: there is nothing in them to estimate a blur from."""


@dataclass(frozen=True)
class FrameShape:
    """Frames in a batch and their size in LR pixels."""

    batch: int
    height: int
    width: int

    def array(self, io: FrameIO, scale: int = 1) -> tuple[int, ...]:
        """The array shape of such frames, or of the upscaled ones."""
        height, width = scale * self.height, scale * self.width
        if io == "uint8":
            return (self.batch, height, width, 3)
        return (self.batch, 3, height, width)


def accept(frame: object, backend: Backend) -> Frames:
    """`frame` without a copy, from any library whose arrays can be read here.

    numpy arrays are taken as they are. Others have to offer DLPack or, for GPU memory,
    `__cuda_array_interface__`. Raises `InputError` for anything else, and for memory of another
    device than the backend's.
    """
    if isinstance(frame, np.ndarray):
        return frame
    if hasattr(frame, "__dlpack_device__") and frame.__dlpack_device__()[0] in _HOST_MEMORY:
        try:
            return np.from_dlpack(frame)  # type: ignore[arg-type]
        except (BufferError, RuntimeError, TypeError) as error:
            raise InputError(f"a frame of type {type(frame).__name__}: {error}") from error
    if hasattr(frame, "__dlpack__") or hasattr(frame, "__cuda_array_interface__"):
        return backend.from_dlpack(frame)
    raise InputError(
        f"a frame must be a numpy array, or one with DLPack or __cuda_array_interface__, got "
        f"{type(frame).__name__}; convert it first"
    )


def check_frames(frame: Frames, io: FrameIO) -> Frames:
    """`frame` as a batch (a view), after checking that the graphs take it.

    With io "uint8": `[H,W,3]` or `[N,H,W,3]` uint8. With io "float": `[3,H,W]` or `[N,3,H,W]`
    float32 in [0,1] (the range is only checked in host memory). Raises `InputError` that names
    what it got and how to convert it.
    """
    if frame.ndim not in (3, 4):
        hint = "; repeat a grey image's plane three times" if frame.ndim == 2 else ""
        raise InputError(f"a frame must be {_wanted(io)}, got shape {list(frame.shape)}{hint}")
    batch = frame if frame.ndim == 4 else frame.reshape((1, *frame.shape))
    if io == "uint8":
        _check_uint8(batch)
    else:
        _check_float(batch)
    shape = frame_shape(batch, io)
    if shape.batch < 1 or min(shape.height, shape.width) < MIN_SIDE:
        raise InputError(
            f"a frame needs at least {MIN_SIDE} pixels on each side, got "
            f"{shape.batch} of {shape.width}x{shape.height}"
        )
    return batch


def frame_shape(batch: Frames | Buffer, io: FrameIO) -> FrameShape:
    """The sizes of a batch of frames."""
    if io == "uint8":
        return FrameShape(batch.shape[0], batch.shape[1], batch.shape[2])
    return FrameShape(batch.shape[0], batch.shape[2], batch.shape[3])


def _check_uint8(batch: Frames) -> None:
    if batch.dtype != np.uint8:
        raise InputError(
            f"this bundle takes uint8 frames, got {batch.dtype}; scale to 0..255, round and cast, "
            "or export with --io float"
        )
    if batch.shape[-1] != 3:
        hint = ""
        if batch.shape[-1] == 4:
            hint = "; drop the alpha channel"
        elif batch.shape[1] == 3:
            hint = "; move the channels last"
        raise InputError(f"a frame must be {_wanted('uint8')}, got shape {list(batch.shape)}{hint}")


def _check_float(batch: Frames) -> None:
    if batch.dtype != np.float32:
        raise InputError(
            f"this bundle takes float32 frames in [0,1], got {batch.dtype}; convert them, "
            "or export with --io uint8"
        )
    if batch.shape[1] != 3:
        hint = "; move the channels first" if batch.shape[-1] == 3 else ""
        raise InputError(f"a frame must be {_wanted('float')}, got shape {list(batch.shape)}{hint}")
    if not isinstance(batch, np.ndarray):
        return
    # NaN fails both comparisons, so it is caught here too.
    if batch.size and not (batch.min() >= -1e-3 and batch.max() <= 1 + 1e-3):
        raise InputError(
            f"float frames must lie in [0,1], got values from {batch.min()} to {batch.max()}; "
            "divide 8-bit values by 255"
        )


def _wanted(io: FrameIO) -> str:
    return "[H,W,3] or [N,H,W,3] uint8" if io == "uint8" else "[3,H,W] or [N,3,H,W] float32"
