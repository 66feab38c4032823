"""Frames under a kernel that is known, of any shape: a bundle's fourth graph on frames of any size.

The graph (see `ikc_deploy.export.usrnet_graph`) takes frames of one size, and takes them to wrap
round. Photographs do neither. So a frame gets a margin as wide as the graph reaches in from an
edge, and what is then larger than the graph is cut into tiles, which overlap by as much. Only a
frame that really wraps round, as the degradation of the FKP convention has it, and that has the
graph's own size is taken as it is.

What lies beyond a photograph's edges is not known, and its mirror image is not what the kernel
would have made: mirrored, a diagonal blur runs along the other diagonal. A network that trusts
such pixels rings far into the picture. So a frame is restored twice: first as if it were noisy,
with its mirror image around it; then with a margin that is the first image blurred by the kernel.
docs/offline.md has what that gains.

ONNX Runtime on the CPU runs it.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.arguments import real_number, whole_number
from ikc_deploy.bundle.manifest import USRNET, Bundle
from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.kernels.conventions import degrade_fkp, lag, to_fkp
from ikc_deploy.kernels.kernel_checks import check_kernels
from ikc_deploy.runtime.backends.base import Binding
from ikc_deploy.runtime.backends.onnx_sessions import load_sessions
from ikc_deploy.runtime.backends.onnxruntime_cpu import CPU_PROVIDER, OnnxRuntimeCpu
from ikc_deploy.runtime.frames import FrameShape, check_frames
from ikc_deploy.runtime.tiling import upscale_in_tiles

Border = Literal["reflect", "wrap"]
"""What is taken to lie beyond a frame's edges: its mirror image, or its opposite edge."""

MAX_NOISE: Final = 50.0
"""8-bit levels; far beyond what networks are trained on."""

ROUNDING_NOISE: Final = 1 / math.sqrt(12)
"""The standard deviation, in levels, of what rounding to 8 bits does: every frame's least noise."""

_FIRST_NOISE: Final = 10.0
"""Levels that a frame with a mirrored margin is taken to have: what does not fit is smoothed."""

_MAX_NEGATIVE: Final = 0.5
"""Bicubic shrinking, which is a part of kernels here, has 0.2."""
_MAX_CUT: Final = 1e-3
"""Share of a kernel's weight that may lie outside the square that the graph takes."""


class NonBlind(AbstractContextManager["NonBlind"]):
    """Upscales frames under given kernels. Calls come from one thread at a time.

    Use it as a context manager, or `close` it. Raises `BundleError` if the bundle has no such
    graph, `BackendError` if ONNX Runtime does not load it.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        whole_number(threads, "threads", 0, " (0: all cores)")
        self.bundle = bundle
        self.scale = bundle.manifest.scale
        self._record, self._io = bundle.usrnet, bundle.manifest.io
        self._rows = 0 if self._io == "uint8" else 1
        self._backend = OnnxRuntimeCpu(load_sessions(bundle, CPU_PROVIDER, {}, threads, (USRNET,)))
        shape = FrameShape(1, self._record.height, self._record.width)
        dtype = np.uint8 if self._io == "uint8" else np.float32
        size = self._record.kernel_size
        allocate = self._backend.allocate
        self._lr = allocate(shape.array(self._io), dtype)
        self._kernel = allocate((1, size, size), np.float32)
        self._noise = allocate((1,), np.float32)
        self._sr = allocate(shape.array(self._io, self.scale), dtype)
        inputs = {"lr": self._lr, "kernel": self._kernel, "noise": self._noise}
        outputs = {"frame" if self._io == "uint8" else "sr": self._sr}
        (self._call,) = self._backend.bind([Binding(USRNET, inputs, outputs)])

    def __call__(
        self,
        frame: NDArray[Any],
        kernel: NDArray[np.floating],
        noise: float = ROUNDING_NOISE,
        border: Border = "reflect",
    ) -> NDArray[Any]:
        """The SR image `[sH,sW,3]` uint8 of an RGB frame `[H,W,3]` uint8; a new array.

        (With a bundle of io "float": `[3,sH,sW]` of `[3,H,W]`, float32 in [0,1].) `kernel` `[k,k]`
        is in the FKP convention, k odd, sum 1; `noise` the standard deviation of the frame's
        noise in 8-bit levels, by default what rounding leaves. Raises `InputError` for other
        frames, noise or borders, `KernelError` for other kernels and for one that is larger than
        the graph takes.
        """
        if not isinstance(frame, np.ndarray):
            raise InputError(f"a frame must be a numpy array, got {type(frame).__name__}")
        batch = check_frames(frame, self._io)
        if len(batch) != 1 or frame.ndim != 3:
            raise InputError("frames with a known kernel are taken one by one; got a batch")
        if not isinstance(border, str) or border not in get_args(Border):
            raise InputError(f"border must be one of {', '.join(get_args(Border))}, got {border!r}")
        levels = real_number(noise, "noise", 0, MAX_NOISE, " levels")
        fitted = fitted_kernel(kernel, self._record.kernel_size)
        self._backend.upload(fitted[None], self._kernel)
        if border == "wrap":
            self._set_noise(levels)
            return self._wrapped(frame)
        mirrored = self._padded(frame, "reflect")
        self._set_noise(max(levels, _FIRST_NOISE))
        first = self._tiled(mirrored)
        self._set_noise(levels)
        return self._inside(self._tiled(self._remargined(mirrored, frame, first, fitted)), frame)

    def _set_noise(self, levels: float) -> None:
        self._backend.upload(np.array([levels / 255], np.float32), self._noise)

    def _wrapped(self, frame: NDArray[Any]) -> NDArray[Any]:
        """The image of a frame that wraps round."""
        if self._sizes(frame) == (self._record.height, self._record.width):
            return self._restored(frame)
        return self._inside(self._tiled(self._padded(frame, "wrap")), frame)

    def _sizes(self, frame: NDArray[Any]) -> tuple[int, int]:
        return frame.shape[self._rows], frame.shape[self._rows + 1]

    def _padded(self, frame: NDArray[Any], border: Border) -> NDArray[Any]:
        """`frame` with a margin, and at least as large as the graph."""
        before = self._record.halo
        margins = [(0, 0)] * 3
        graph = self._record.height, self._record.width
        for axis, (size, whole) in enumerate(zip(self._sizes(frame), graph, strict=True)):
            margins[self._rows + axis] = (before, max(before, whole - size - before))
        return np.pad(frame, margins, border)

    def _tiled(self, padded: NDArray[Any]) -> NDArray[Any]:
        graph, reach = (self._record.height, self._record.width), self._record.halo
        return upscale_in_tiles(padded, graph, reach, self._io, self.scale, self._restored)

    def _inside(self, image: NDArray[Any], frame: NDArray[Any]) -> NDArray[Any]:
        """The image of `frame` itself, from that of a padded one."""
        start = self.scale * self._record.halo
        inside = [slice(None)] * 3
        for axis, size in enumerate(self._sizes(frame)):
            inside[self._rows + axis] = slice(start, start + self.scale * size)
        return np.ascontiguousarray(image[tuple(inside)])

    def _remargined(
        self,
        padded: NDArray[Any],
        frame: NDArray[Any],
        image: NDArray[Any],
        kernel: NDArray[np.float32],
    ) -> NDArray[Any]:
        """`padded` with a margin that is what `kernel` makes of its `image`."""
        made, before = padded.copy(), self._record.halo
        small, large = (
            np.moveaxis(each, (self._rows, self._rows + 1), (0, 1)) for each in (made, image)
        )
        white = 255 if self._io == "uint8" else 1
        for axis, size in enumerate(self._sizes(frame)):
            for start, stop in ((0, before), (before + size, small.shape[axis])):
                blurred = _blurred(large, kernel, self.scale, axis, start, stop)
                levels = np.rint(blurred) if self._io == "uint8" else blurred
                small[(slice(None),) * axis + (slice(start, stop),)] = np.clip(levels, 0, white)
        return made

    def _restored(self, tile: NDArray[Any]) -> NDArray[Any]:
        self._backend.upload(np.ascontiguousarray(tile)[None], self._lr)
        self._call.enqueue()
        return self._backend.download(self._sr)[0]

    def close(self) -> None:
        """Free the graph. Calling it again does nothing."""
        self._backend.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _blurred(
    image: NDArray[Any],
    kernel: NDArray[np.float32],
    scale: int,
    axis: int,
    start: int,
    stop: int,
) -> NDArray[np.float64]:
    """LR rows (axis 0) or columns `start` to `stop` of an SR image `[sH,sW,3]`, in FKP's way."""
    reach = -(-(len(kernel) // 2) // scale)
    first, last = max(0, start - reach), min(image.shape[axis] // scale, stop + reach)
    place = slice(scale * first, scale * last)
    strip = image[(slice(None),) * axis + (place,)]
    inside = slice(start - first, stop - first)
    return degrade_fkp(strip, kernel, scale)[(slice(None),) * axis + (inside,)]


def fitted_kernel(kernel: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """`kernel` `[k,k]` as float32 `[size,size]`: with zeros around it, or its edge cut off.

    Raises `KernelError` if it is not square with an odd side and sum 1, if it has much negative
    weight, or if there is weight on the edge that would be cut off.
    """
    kernel = check_kernels(kernel, _MAX_NEGATIVE, single=True)
    side = len(kernel)
    margin = (size - side) // 2
    if margin >= 0:
        return np.pad(kernel, margin).astype(np.float32)
    middle = kernel[-margin:margin, -margin:margin]
    cut = float(np.abs(kernel).sum() - np.abs(middle).sum())
    if cut > _MAX_CUT:
        raise KernelError(
            f"this kernel of {side} pixels has {cut:.1%} of its weight outside the {size}x{size} "
            "pixels that the graph takes; give a narrower one"
        )
    return (middle / middle.sum()).astype(np.float32)


def fkp_in_place(kernel: NDArray[np.floating], scale: int) -> NDArray[np.float64]:
    """Our blur by a centred `kernel` `[n,n]` and our bicubic shrinking, as one FKP kernel `[m,m]`.

    Unlike `to_fkp` its picture lies where ours does, so that SR images need no moving.
    """
    before = 2 * lag(scale)
    return np.pad(to_fkp(kernel, scale), ((before, 0), (before, 0)))
