"""Upscaling with known kernels of any shape: a bundle's USRNet graph on frames of any size.

The graph (see `ikc_deploy.export.usrnet_graph`) accepts frames of one size, and assumes that they
wrap around. Photographs have other sizes and do not wrap around. So a frame gets a margin as wide
as the graph's halo. If it is then larger than the graph's size, it is cut into tiles that overlap
accordingly. A frame is used unchanged only if it wraps around, as in the degradation of the FKP
convention, and has the graph's size.

A photograph is upscaled twice, so that its margin fits the kernel: see `frame_margin`.

The graph runs in ONNX Runtime on the CPU.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.arguments import real_number, whole_number
from ikc_deploy.bundle.manifest import USRNET, Bundle
from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.kernels.conventions import lag, to_fkp
from ikc_deploy.kernels.kernel_checks import check_kernels
from ikc_deploy.runtime.backends.base import Binding
from ikc_deploy.runtime.backends.onnx_sessions import load_sessions
from ikc_deploy.runtime.backends.onnxruntime_cpu import CPU_PROVIDER, OnnxRuntimeCpu
from ikc_deploy.runtime.frame_margin import Border, FrameMargin, frame_size
from ikc_deploy.runtime.frames import LAYOUTS, FrameShape, check_frames
from ikc_deploy.runtime.tiling import upscale_in_tiles
from ikc_deploy.text import shown

MAX_NOISE: Final = 50.0
"""Maximum noise in 8-bit levels, far beyond what networks are trained on."""

ROUNDING_NOISE: Final = 1 / math.sqrt(12)
"""Standard deviation of the error of rounding to 8 bits, in levels: a frame's minimum noise."""

_MAX_NEGATIVE: Final = 0.5
"""Maximum absolute sum of negative weights; that of the included bicubic filter is 0.2."""
_MAX_CUT: Final = 1e-3
"""Maximum share of a kernel's weight outside the square that the graph accepts."""


class NonBlind(AbstractContextManager["NonBlind"]):
    """An upscaler of frames with given kernels. One thread at a time may call it.

    Use it as a context manager, or call `close`.

    Args:
        bundle: An opened bundle with the fourth graph (`ikc-export --usrnet`).
        threads: Number of CPU cores; 0 for all.

    Raises:
        InputError: `bundle` or `threads` is invalid.
        BundleError: The bundle has no such graph.
        BackendError: ONNX Runtime does not load it.

    Example:
        >>> with NonBlind(Bundle.open("x4.bundle")) as nonblind:  # doctest: +SKIP
        ...     image = nonblind(frame, kernel)
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        if not isinstance(bundle, Bundle):
            raise InputError(f"bundle must be an opened Bundle, got {shown(bundle)}")
        whole_number(threads, "threads", 0, " (0: all cores)")
        self.bundle = bundle
        self.scale = bundle.manifest.scale
        self._record, self._io = bundle.usrnet, bundle.manifest.io
        size = self._record.height, self._record.width
        self._margin = FrameMargin(self._record.halo, self.scale, size)
        self._backend = OnnxRuntimeCpu(load_sessions(bundle, CPU_PROVIDER, {}, threads, (USRNET,)))
        shape = FrameShape(1, self._record.height, self._record.width)
        layout = LAYOUTS[self._io]
        side = self._record.kernel_size
        allocate = self._backend.allocate
        self._lr = allocate(shape.array(self._io), layout.dtype)
        self._kernel = allocate((1, side, side), np.float32)
        self._noise = allocate((1,), np.float32)
        self._sr = allocate(shape.array(self._io, self.scale), layout.dtype)
        inputs = {"lr": self._lr, "kernel": self._kernel, "noise": self._noise}
        outputs = {layout.image: self._sr}
        (self._call,) = self._backend.bind([Binding(USRNET, inputs, outputs)])

    def __call__(
        self,
        frame: NDArray[Any],
        kernel: NDArray[np.floating],
        noise: float = ROUNDING_NOISE,
        border: Border = "reflect",
    ) -> NDArray[Any]:
        """Upscale one RGB frame with a known kernel.

        Args:
            frame: numpy array `[H,W,3]` uint8, or `[3,H,W]` float32 in [0,1] for a bundle with io
                "float".
            kernel: Blur kernel `[k,k]` in the FKP convention, k odd, sum 1.
            noise: Standard deviation of the frame's noise in 8-bit levels, 0 to `MAX_NOISE`; by
                default that of rounding.
            border: Assumed content beyond the frame's edges.

        Returns:
            SR image `[sH,sW,3]` uint8 or `[3,sH,sW]` float32, a new array.

        Raises:
            InputError: The frame, noise or border is invalid.
            KernelError: The kernel is invalid, or has weight outside the size that the graph
                accepts.
            BackendError: ONNX Runtime failed.
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
            return self._wrapped(frame, levels)
        image = self._margin.upscaled_twice(frame, fitted, levels, self._tiled)
        return self._margin.inside(image, frame)

    def _set_noise(self, levels: float) -> None:
        self._backend.upload(np.array([levels / 255], np.float32), self._noise)

    def _wrapped(self, frame: NDArray[Any], levels: float) -> NDArray[Any]:
        """Return the SR image of a frame that wraps around."""
        if frame_size(frame) == self._margin.smallest:
            self._set_noise(levels)
            return self._restored(frame)
        return self._margin.inside(self._tiled(self._margin.padded(frame, "wrap"), levels), frame)

    def _tiled(self, padded: NDArray[Any], levels: float) -> NDArray[Any]:
        self._set_noise(levels)
        graph, reach = self._margin.smallest, self._margin.halo
        return upscale_in_tiles(padded, graph, reach, self._io, self.scale, self._restored)

    def _restored(self, tile: NDArray[Any]) -> NDArray[Any]:
        self._backend.upload(np.ascontiguousarray(tile)[None], self._lr)
        self._call.enqueue()
        return self._backend.download(self._sr)[0]

    def close(self) -> None:
        """Free the graph; a second call does nothing."""
        self._backend.close()

    def __exit__(self, *_: object) -> None:
        """Close the object at the end of the `with` block."""
        self.close()


def fitted_kernel(kernel: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Pad or crop a kernel to the size that the graph accepts.

    Args:
        kernel: `[k,k]`, k odd, sum 1.
        size: Side of the result, odd.

    Returns:
        float32 `[size,size]`, sum 1.

    Raises:
        KernelError: The kernel is not square with an odd side and sum 1, its negative weights are
            too large, or there is weight on the edge that would be cut off.
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
            "pixels that the graph accepts; give a narrower one"
        )
    return (middle / middle.sum()).astype(np.float32)


def fkp_in_place(kernel: NDArray[np.floating], scale: int) -> NDArray[np.float64]:
    """Return our blur and bicubic downscaling as one FKP kernel without a shift of the image.

    In contrast to `to_fkp`, the image lies where that of our convention does, so that the SR image
    need not be shifted.

    Args:
        kernel: Centred kernel `[n,n]` of our convention, n odd.
        scale: Scale factor.

    Returns:
        float64 `[m,m]`, m odd.
    """
    before = 2 * lag(scale)
    return np.pad(to_fkp(kernel, scale), ((before, 0), (before, 0)))
