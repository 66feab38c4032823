"""Which arrays are blur kernels, and which of them a basis knows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.arguments import real_array
from ikc_deploy.errors import KernelError
from ikc_deploy.kernels.basis import KernelBasis
from ikc_deploy.kernels.conventions import to_fkp

MAX_LOST: Final = 0.15
"""Relative error of a projected kernel above which a basis does not know it."""

MAX_NEGATIVE: Final = 0.1
"""Sum of a centred blur's negative weights. Decoded codes have up to 0.04 (measured), and what
sharpens has more."""

_SUM_TOLERANCE: Final = 1e-3


def check_kernels(
    kernel: Any, most_negative: float, single: bool = False, tolerance: float = _SUM_TOLERANCE
) -> NDArray[np.float64]:
    """`kernel` as float64 `[k,k]` or, unless `single`, `[N,k,k]`.

    Raises `KernelError` unless each is square, k odd, all weights finite, their sum 1, and the
    sum of the negative ones at most `most_negative`.
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
            f"a kernel's weights must not be negative: these sum to {-negative:.3g}, and a blur "
            "has none but for rounding"
        )
    return kernels


def projection_error(kernel: NDArray[np.float64], basis: KernelBasis, scale: int) -> float:
    """How far what the nearest kernel of a basis does is from what `kernel` `[k,k]` does.

    Both are centred blurs before bicubic shrinking by `scale`; the norm of the difference over
    that of what `kernel` does.
    """
    asked = to_fkp(kernel, scale)
    given = to_fkp(basis.decode(basis.encode(kernel)), scale)
    return float(np.linalg.norm(given - asked) / np.linalg.norm(asked))
