"""Self-ensemble: the mean image over the eight flips and rotations of a frame.

The SR network is not exactly equivariant, so its errors differ between a frame and its flips and
rotations, and averaging reduces them (Timofte, Rothe and Van Gool, "Seven ways to improve
example-based single image super resolution", CVPR 2016). The blur is estimated once, from the
untransformed frame: a flipped frame has the flipped kernel, whose code is computed from the
estimated one. A separate estimate for each transformed frame would take longer and add the errors
of the estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.runtime.frames import FrameBatch, FrameLayout


@dataclass(frozen=True)
class Symmetry:
    """A flip, a rotation or both: one of the eight symmetries of a square."""

    transposes: bool
    """Whether rows and columns are swapped, after the flips."""
    flips_rows: bool
    """Whether rows are reversed."""
    flips_columns: bool
    """Whether columns are reversed."""

    def apply(self, array: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
        """Return a transformed view.

        Args:
            array: An array of any shape.
            rows: Axis of the rows.
            columns: Axis of the columns.
        """
        flipped = np.flip(array, self._flipped(rows, columns))
        return np.swapaxes(flipped, rows, columns) if self.transposes else flipped

    def undo(self, array: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
        """Return a view that reverses `apply`."""
        turned = np.swapaxes(array, rows, columns) if self.transposes else array
        return np.flip(turned, self._flipped(rows, columns))

    def codes(self, basis: KernelBasis, codes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the codes `[...,code_size]` of the transformed kernels, with the same levels.

        Transformed elliptic kernels are projected onto the basis; isotropic kernels are invariant.
        """
        if not basis.elliptic:
            return codes
        return basis.take_levels(basis.encode(self.apply(basis.decode(codes), -2, -1)), codes)

    def _flipped(self, rows: int, columns: int) -> tuple[int, ...]:
        return (rows,) * self.flips_rows + (columns,) * self.flips_columns


SYMMETRIES: Final = tuple(Symmetry(*each) for each in product((False, True), repeat=3))
"""The eight symmetries, starting with the identity; those that transpose come last."""


def check_host_frames(frames: FrameBatch) -> None:
    """Raise `InputError` if frames are not in host memory."""
    if not frames.on_host:
        raise InputError(
            "self_ensemble takes frames in host memory, got frames in GPU memory; copy them to "
            "numpy, or load an Upscaler without self_ensemble"
        )


def averaged(
    images: Sequence[NDArray[Any]],
    codes: Sequence[NDArray[np.float32]],
    frames: FrameBatch,
    basis: KernelBasis,
    upscale: Callable[[FrameBatch, Sequence[NDArray[np.float32]]], Iterator[NDArray[Any]]],
) -> list[NDArray[Any]]:
    """Return the mean images over all symmetries, in the dtype of `images`.

    Args:
        images: Images `[N,...]` of the untransformed frames, one for each of `codes`.
        codes: Kernel codes `[N,code_size]`, one for each step.
        frames: The frames, in host memory.
        basis: Basis of the codes.
        upscale: Yields the images of frames, one for each of the given codes.
    """
    axes = _axes(frames.layout)
    totals = [image.astype(np.float32) for image in images]
    for symmetry in SYMMETRIES[1:]:
        array = np.ascontiguousarray(symmetry.apply(np.asarray(frames.array), *axes))
        turned = [symmetry.codes(basis, each) for each in codes]
        for total, image in zip(totals, upscale(replace(frames, array=array), turned), strict=True):
            total += symmetry.undo(image, *axes)
    return [
        _as_dtype(total / len(SYMMETRIES), image.dtype)
        for total, image in zip(totals, images, strict=True)
    ]


def _axes(layout: FrameLayout) -> tuple[int, int]:
    """Return the row axis and the column axis of a batch."""
    rows, columns = (axis for axis in (1, 2, 3) if axis != 1 + layout.channels)
    return rows, columns


def _as_dtype(mean: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[Any]:
    return (np.rint(mean) if dtype.kind == "u" else mean).astype(dtype)
