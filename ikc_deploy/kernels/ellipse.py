"""The ellipse of a blur kernel: its sigmas along both axes and its direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ikc_deploy.arguments import real_array
from ikc_deploy.errors import KernelError


@dataclass(frozen=True)
class Ellipse:
    """The second moments of a blur kernel as an ellipse."""

    long: float
    """Standard deviation along the long axis, in HR pixels."""
    short: float
    """Standard deviation along the short axis, in HR pixels."""
    angle: float
    """Angle of the long axis in degrees from the horizontal, counterclockwise, in [0, 180)."""


def ellipse_of_kernel(kernel: ArrayLike) -> Ellipse:
    """Return the ellipse of a kernel; negative entries count as 0.

    The moments are those of the kernel's pixels: a blur that is wider than the kernel measures
    narrower than it is.

    Args:
        kernel: `[k, k]`, with an entry above 0.

    Raises:
        KernelError: The kernel is not square, not finite, or has no entry above 0.
    """
    values = real_array(kernel, "a kernel", KernelError)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise KernelError(f"a kernel must be square, got shape {list(values.shape)}")
    weight = np.clip(values, 0, None)
    if not weight.sum() > 0:
        raise KernelError("a kernel must have an entry above 0")
    weight /= weight.sum()
    offsets = np.arange(len(weight)) - (len(weight) - 1) / 2
    x, y = np.meshgrid(offsets, -offsets)
    points = np.stack([x.ravel(), y.ravel()])
    centred = points - (points * weight.ravel()).sum(axis=1, keepdims=True)
    variances, axes = np.linalg.eigh((centred * weight.ravel()) @ centred.T)
    short, long = np.sqrt(np.clip(variances, 0, None))
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180
    return Ellipse(float(long), float(short), float(angle))
