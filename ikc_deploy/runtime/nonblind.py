"""Frames under a kernel that is known, of any shape: a bundle's fourth graph on frames of any size.

The graph (see `ikc_deploy.export.usrnet`) takes frames of one size, and takes them to wrap round.
Photographs do neither. So a frame gets a margin as wide as the graph reaches in from an edge, and
what is then larger than the graph is cut into tiles, which overlap by as much. Only a frame that
really wraps round, as the degradation of the FKP convention has it, and that has the graph's own
size is taken as it is.

ONNX Runtime on the CPU runs it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle import USRNET, Bundle
from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.kernels.conventions import lag, to_fkp
from ikc_deploy.runtime.backends.base import Binding
from ikc_deploy.runtime.backends.onnx_sessions import load_sessions
from ikc_deploy.runtime.backends.onnxruntime_cpu import CPU_PROVIDER, OnnxRuntimeCpu
from ikc_deploy.runtime.closing import Closing
from ikc_deploy.runtime.frames import FrameShape, check_frames
from ikc_deploy.runtime.tiling import restore_in_tiles

Border = Literal["reflect", "wrap"]
"""What is taken to lie beyond a frame's edges: its mirror image, or its opposite edge."""

MOST_NOISE: Final = 50.0
"""8-bit levels; far beyond what networks are trained on."""

_SUM_TOLERANCE: Final = 1e-3
_MOST_CUT: Final = 1e-3
"""Share of a kernel's weight that may lie outside the square that the graph takes."""


class NonBlind(Closing):
    """Upscales frames under given kernels. Calls come from one thread at a time.

    Use it as a context manager, or `close` it. Raises `BundleError` if the bundle has no such
    graph, `BackendError` if ONNX Runtime does not load it.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        if threads < 0:
            raise InputError(f"threads must be 0 (all cores) or more, got {threads}")
        self.bundle = bundle
        self.scale = bundle.manifest.scale
        self._record, self._io = bundle.usrnet, bundle.manifest.io
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
        noise: float = 0.0,
        border: Border = "reflect",
    ) -> NDArray[Any]:
        """The SR image `[sH,sW,3]` uint8 of an RGB frame `[H,W,3]` uint8; a new array.

        (With a bundle of io "float": `[3,sH,sW]` of `[3,H,W]`, float32 in [0,1].) `kernel` `[k,k]`
        is in the FKP convention, k odd, sum 1; `noise` the standard deviation of the frame's
        noise in 8-bit levels. Raises `InputError` for other frames, noise or borders,
        `KernelError` for other kernels and for one that is larger than the graph takes.
        """
        batch = check_frames(frame, self._io)
        if len(batch) != 1 or frame.ndim != 3:
            raise InputError("frames with a known kernel are taken one by one; got a batch")
        if border not in get_args(Border):
            raise InputError(f"border must be one of {', '.join(get_args(Border))}, got {border!r}")
        if not 0 <= noise <= MOST_NOISE:
            raise InputError(f"noise must lie in [0, {MOST_NOISE:g}] levels, got {noise!r}")
        fitted = fitted_kernel(kernel, self._record.kernel_size)
        self._backend.upload(fitted[None], self._kernel)
        self._backend.upload(np.array([noise / 255], np.float32), self._noise)
        return self._cropped(frame, border)

    def _cropped(self, frame: NDArray[Any], border: Border) -> NDArray[Any]:
        """The image of `frame` from that of a larger frame around it."""
        rows = 0 if self._io == "uint8" else 1
        sizes = frame.shape[rows], frame.shape[rows + 1]
        graph = self._record.height, self._record.width
        if border == "wrap" and sizes == graph:
            return self._restored(frame)
        before = self._record.reach
        margins = [(0, 0)] * 3
        for axis, (size, whole) in enumerate(zip(sizes, graph, strict=True)):
            margins[rows + axis] = (before, max(before, whole - size - before))
        padded = np.pad(frame, margins, border)
        image = restore_in_tiles(padded, graph, before, self._io, self.scale, self._restored)
        inside = [slice(None)] * 3
        for axis, size in enumerate(sizes):
            inside[rows + axis] = slice(self.scale * before, self.scale * (before + size))
        return np.ascontiguousarray(image[tuple(inside)])

    def _restored(self, tile: NDArray[Any]) -> NDArray[Any]:
        self._backend.upload(np.ascontiguousarray(tile)[None], self._lr)
        self._call.enqueue()
        return self._backend.download(self._sr)[0]

    def close(self) -> None:
        """Free the graph. Calling it again does nothing."""
        self._backend.close()


def fitted_kernel(kernel: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """`kernel` `[k,k]` as float32 `[size,size]`: with zeros around it, or its edge cut off.

    Raises `KernelError` if it is not square with an odd side and sum 1, or if there is weight on
    the edge that would be cut off.
    """
    side = kernel.shape[0] if kernel.ndim == 2 else 0
    if side % 2 == 0 or kernel.shape != (side, side) or not np.all(np.isfinite(kernel)):
        raise KernelError(
            f"a kernel must be [k,k], k odd, all values finite; got {list(kernel.shape)}"
        )
    total = float(kernel.sum())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise KernelError(f"a kernel's sum must be 1, got {total:g}; divide it by its sum")
    margin = (size - side) // 2
    if margin >= 0:
        return np.pad(kernel, margin).astype(np.float32)
    middle = kernel[-margin:margin, -margin:margin]
    cut = float(np.abs(kernel).sum() - np.abs(middle).sum())
    if cut > _MOST_CUT:
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
