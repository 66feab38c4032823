"""Frames: the supported arrays, validation of their dtype, shape and range, and memory layouts.

This is the only module of the runtime that knows what the layouts "uint8" and "float" mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import FrameIO
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.backends.base import Backend, Buffer, DeviceFrames, PlaneIndex

Frames = NDArray[Any] | DeviceFrames
"""A frame or a batch of them, in host memory or on the backend's device."""

_HOST_MEMORY: Final = (1, 3)
"""Device types of DLPack whose memory the CPU can read: kDLCPU and kDLCUDAHost."""

MIN_SIDE: Final = 8
"""Minimum side of a frame in LR pixels; smaller frames do not contain enough to estimate blur."""

Area = tuple[slice, slice]
"""Rows and columns of a frame, in LR pixels."""


@dataclass(frozen=True)
class FrameLayout:
    """Axis order, dtype and value range of frames."""

    dtype: np.dtype[Any]
    """Data type."""
    channels: int
    """Channel axis of a frame without batch axis."""
    white: int
    """Maximum value."""
    image: str
    """Name of the SR network's output that has this layout."""
    text: str
    """Shapes and dtype, for messages."""

    def sr_dtype(self, precision: str) -> np.dtype[Any]:
        """Return the dtype of the graphs' `sr` (see `ikc_deploy.export.graphs`)."""
        half = precision == "fp16" and self.image != "sr"
        return np.dtype(np.float16 if half else np.float32)

    def index(self, area: Area) -> tuple[slice, ...]:
        """Return the index of an area in a frame without batch axis."""
        index = list(area)
        index.insert(self.channels, slice(0, 3))
        return tuple(index)

    def channels_last(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an image as `[H,W,3]`."""
        return np.moveaxis(image, self.channels, -1)

    def from_channels_last(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return pixels `[H,W,3]` in this layout, C-contiguous."""
        return np.ascontiguousarray(np.moveaxis(pixels, -1, self.channels))

    def to_8bit_range(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return an image as `[H,W,3]` float32 with values from 0 to 255."""
        return (255 // self.white) * self.channels_last(image).astype(np.float32)

    def green(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return the green plane `[H,W]` of a frame, 0 to 255, as an approximation of luma."""
        plane = self.channels_last(frame)[..., 1]
        return plane if self.white == 255 else 255 * plane


LAYOUTS: Final[Mapping[FrameIO, FrameLayout]] = MappingProxyType(
    {
        "uint8": FrameLayout(np.dtype(np.uint8), 2, 255, "frame", "[H,W,3] or [N,H,W,3] uint8"),
        "float": FrameLayout(np.dtype(np.float32), 0, 1, "sr", "[3,H,W] or [N,3,H,W] float32"),
    }
)
"""Layouts by the manifest's `io`."""


@dataclass(frozen=True)
class FrameShape:
    """Batch size, height and width of LR frames."""

    batch: int
    """Number of frames."""
    height: int
    """Height in LR pixels."""
    width: int
    """Width in LR pixels."""

    def array(self, io: FrameIO, scale: int = 1) -> tuple[int, ...]:
        """Return the shape of the array of these frames, upscaled by `scale`, in layout `io`."""
        sides = [scale * self.height, scale * self.width]
        sides.insert(LAYOUTS[io].channels, 3)
        return (self.batch, *sides)


@dataclass(frozen=True, eq=False)
class FrameBatch:
    """The validated frames of one call, in host memory or on the backend's device."""

    array: Frames
    """Batch `[N,H,W,3]` or `[N,3,H,W]`."""
    io: FrameIO
    """Layout and dtype of the frames."""
    single: bool
    """Whether the caller passed a single frame without batch axis."""

    @classmethod
    def of(cls, frame: object, io: FrameIO, backend: Backend) -> FrameBatch:
        """Validate a frame or a batch of frames, without a copy.

        Args:
            frame: An array that `as_frames` supports, with a shape that `check_frames` supports.
            io: Layout and dtype of the frames.
            backend: The backend that will read it.

        Returns:
            The batch; it shares memory with `frame`.

        Raises:
            InputError: The type, dtype, shape or range is wrong.
        """
        array = as_frames(frame, backend)
        return cls(check_frames(array, io), io, array.ndim == 3)

    @property
    def layout(self) -> FrameLayout:
        """Layout of the frames."""
        return LAYOUTS[self.io]

    @property
    def shape(self) -> FrameShape:
        """Number of frames, height and width."""
        return frame_shape(self.array, self.io)

    @property
    def on_host(self) -> bool:
        """Whether the frames are in host memory."""
        return isinstance(self.array, np.ndarray)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.array)

    def index(self, number: int, area: Area) -> tuple[slice, ...]:
        """Return the index of an area of one frame; indexing the batch with it keeps all axes."""
        return (slice(number, number + 1), *self.layout.index(area))

    def green_index(self, number: int) -> PlaneIndex:
        """Return the location of the green plane of a frame in the batch."""
        sizes = list(self.array.shape)
        strides = [math.prod(sizes[axis + 1 :]) for axis in range(4)]
        channels = 1 + self.layout.channels
        offset = number * strides[0] + strides[channels]
        rows, columns = (axis for axis in (1, 2, 3) if axis != channels)
        return PlaneIndex(offset, strides[rows], strides[columns], sizes[rows], sizes[columns])


def as_frames(frame: object, backend: Backend) -> Frames:
    """Convert an array of any supported library, without a copy.

    Args:
        frame: A numpy array, which is returned unchanged; an array that supports DLPack; or an
            array in GPU memory that supports `__cuda_array_interface__`.
        backend: The backend that will read it.

    Returns:
        A numpy array, or `DeviceFrames` on the backend's device. Both share memory with `frame`.

    Raises:
        InputError: The type is not supported, or the memory is on another device.
    """
    if isinstance(frame, np.ma.MaskedArray):
        raise InputError("a frame cannot be a masked array; fill it first, by frame.filled(0)")
    if isinstance(frame, np.ndarray):
        return frame
    if hasattr(frame, "__dlpack_device__"):
        try:
            if frame.__dlpack_device__()[0] in _HOST_MEMORY:
                return np.from_dlpack(frame)  # type: ignore[arg-type]
        except Exception as error:  # libraries raise many types
            raise InputError(f"a frame of type {type(frame).__name__}: {error}") from error
    if hasattr(frame, "__dlpack__") or hasattr(frame, "__cuda_array_interface__"):
        return backend.from_dlpack(frame)
    raise InputError(
        f"a frame must be a numpy array, or one with DLPack or __cuda_array_interface__, got "
        f"{type(frame).__name__}; convert it, for example by numpy.asarray(frame)"
    )


def check_frames(frame: Frames, io: FrameIO) -> Frames:
    """Validate a frame or batch, and return it as a batch.

    Args:
        frame: With io "uint8", `[H,W,3]` or `[N,H,W,3]` uint8. With io "float", `[3,H,W]` or
            `[N,3,H,W]` float32 in [0,1]; the range is only checked in host memory.
        io: Layout and dtype of frames.

    Returns:
        A view with a leading batch axis.

    Raises:
        InputError: The dtype, shape or range is wrong; the message explains the conversion.
    """
    if frame.ndim not in (3, 4):
        hint = "; repeat a grey image's plane three times" if frame.ndim == 2 else ""
        raise InputError(f"a frame must be {LAYOUTS[io].text}, got shape {list(frame.shape)}{hint}")
    batch = frame if frame.ndim == 4 else frame.reshape((1, *frame.shape))
    (_check_uint8 if io == "uint8" else _check_float)(batch)
    shape = frame_shape(batch, io)
    if shape.batch < 1 or min(shape.height, shape.width) < MIN_SIDE:
        count = "" if shape.batch == 1 else f"{shape.batch} of "
        raise InputError(
            f"a frame needs at least {MIN_SIDE} pixels on each side, got "
            f"{count}{shape.width}x{shape.height}; pad it"
        )
    return batch


def frame_shape(batch: Frames | Buffer, io: FrameIO) -> FrameShape:
    """Return the batch size, height and width of frames in layout `io`."""
    sides = list(batch.shape[1:])
    del sides[LAYOUTS[io].channels]
    return FrameShape(batch.shape[0], *sides)


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
        raise InputError(
            f"a frame must be {LAYOUTS['uint8'].text}, got shape {list(batch.shape)}{hint}"
        )


def _check_float(batch: Frames) -> None:
    if batch.dtype != np.float32:
        raise InputError(
            f"this bundle takes float32 frames in [0,1], got {batch.dtype}; convert them, "
            "or export with --io uint8"
        )
    if batch.shape[1] != 3:
        hint = "; move the channels first" if batch.shape[-1] == 3 else ""
        raise InputError(
            f"a frame must be {LAYOUTS['float'].text}, got shape {list(batch.shape)}{hint}"
        )
    if not isinstance(batch, np.ndarray):
        return
    # NaN fails both comparisons, so it is caught here too.
    if batch.size and not (batch.min() >= -1e-3 and batch.max() <= 1 + 1e-3):
        raise InputError(
            f"float frames must lie in [0,1], got values from {batch.min()} to {batch.max()}; "
            "divide 8-bit values by 255"
        )
