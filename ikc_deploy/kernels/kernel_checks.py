"""Checks of blur kernels, and how well a basis represents them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.arguments import real_array
from ikc_deploy.errors import KernelError
from ikc_deploy.kernels.basis import KernelBasis
from ikc_deploy.kernels.conventions import to_fkp

MAX_LOST: Final = 0.15
"""Maximum relative error of a projected kernel that a basis is taken to represent."""

MAX_NEGATIVE: Final = 0.1
"""Maximum absolute sum of a centred blur's negative weights. Decoded codes have up to 0.04
(measured), and sharpening kernels have more."""

_SUM_TOLERANCE: Final = 1e-3


def check_kernels(
    kernel: Any, most_negative: float, single: bool = False, tolerance: float = _SUM_TOLERANCE
) -> NDArray[np.float64]:
    """Check blur kernels and return them as float64.

    Args:
        kernel: `[k,k]` or, unless `single`, `[N,k,k]`; k odd.
        most_negative: Maximum absolute sum of the negative weights of a kernel.
        single: Whether only one kernel is accepted.
        tolerance: Maximum distance of a kernel's sum from 1.

    Returns:
        The kernels in the shape given.

    Raises:
        KernelError: A kernel is not square with an odd side, a weight is not finite, the sum is not
            1, or the negative weights are too large.
    """
    kernels = real_array(kernel, "a kernel", KernelError)
    shape = kernels.shape
    dimensions = (2,) if single else (2, 3)
    if kernels.ndim not in dimensions or 0 in shape or shape[-1] != shape[-2] or shape[-1] % 2 == 0:
        wanted = "[k,k]" if single else "[k,k] or [N,k,k]"
        raise KernelError(f"a kernel must be {wanted}, k odd; got {list(shape)}")
    sums = kernels.sum(axis=(-2, -1))
    if np.abs(sums - 1).max() > tolerance:
        worst = sums.flat[np.abs(sums - 1).argmax()]
        raise KernelError(f"a kernel's sum must be 1, got {worst:g}; divide it by its sum")
    negative = float(-np.minimum(kernels, 0).sum(axis=(-2, -1)).min())
    if negative > most_negative:
        raise KernelError(
            f"a kernel's weights must not be negative: the negative weights sum to "
            f"{-negative:.3g}, more than rounding explains; give a blur kernel"
        )
    return kernels


def projection_error(kernel: NDArray[np.float64], basis: KernelBasis, scale: int) -> float:
    """Return the relative error of the nearest kernel of a basis.

    Both kernels are compared as centred blurs followed by bicubic downscaling (`to_fkp`).

    Args:
        kernel: Centred kernel `[k,k]`, sum 1.
        basis: The basis.
        scale: Scale factor.

    Returns:
        The norm of the difference divided by the norm for `kernel`.
    """
    asked = to_fkp(kernel, scale)
    given = to_fkp(basis.decode(basis.encode(kernel)), scale)
    return float(np.linalg.norm(given - asked) / np.linalg.norm(asked))
