"""Frames: which arrays are accepted, and checks of their dtype, shape and range."""

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
"""Device types of DLPack whose memory the CPU can read: kDLCPU and kDLCUDAHost."""

MIN_SIDE: Final = 8
"""Minimum side of a frame in LR pixels: in smaller frames there is too little to estimate blur."""


@dataclass(frozen=True)
class FrameShape:
    """The number of frames in a batch and their size in LR pixels."""

    batch: int
    """Number of frames."""
    height: int
    """Height in LR pixels."""
    width: int
    """Width in LR pixels."""

    def array(self, io: FrameIO, scale: int = 1) -> tuple[int, ...]:
        """Return the shape of an array of such frames, upscaled by `scale`, in the layout `io`."""
        height, width = scale * self.height, scale * self.width
        if io == "uint8":
            return (self.batch, height, width, 3)
        return (self.batch, 3, height, width)


def accept(frame: object, backend: Backend) -> Frames:
    """Return an array of any supported library as frames, without a copy.

    Args:
        frame: A numpy array, returned unchanged; or an array of another library with DLPack or,
            in GPU memory, `__cuda_array_interface__`.
        backend: The backend that will read it.

    Returns:
        A numpy array, or `DeviceFrames` on the backend's device. Both share the memory of `frame`.

    Raises:
        InputError: The type is not supported, or the memory is on another device.
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
    """Check a frame or batch and return it as a batch.

    Args:
        frame: With io "uint8", `[H,W,3]` or `[N,H,W,3]` uint8. With io "float", `[3,H,W]` or
            `[N,3,H,W]` float32 in [0,1]; the range is checked in host memory only.
        io: Layout and dtype of frames.

    Returns:
        A view with a leading batch axis.

    Raises:
        InputError: dtype, shape or range is wrong; the message states how to convert the frame.
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
    """Return the number, height and width of a batch of frames in the layout `io`."""
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
