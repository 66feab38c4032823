"""The last of what the LR picture says, put into a picture in closed form.

A picture from anywhere (bicubic, a network that was not fitted to its end) departs from what the
LR picture says under a kernel. The nearest picture that does not is a least-squares problem, and
no matter of taste: of x, minimise |A x - lr|^2 + TRUST |x - picture|^2, with A for blur and
sampling. By the identity of Woodbury that is a system of LR size,

    x = picture + A^T (A A^T + TRUST)^-1 (lr - A picture),

well enough conditioned for conjugate gradients. On a canvas (`degrading`) nothing is assumed
about the border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor

from ikc_deploy.offline.forward_model import degrade, degrade_adjoint

TRUST: Final = 1e-2
"""In the picture, beside the LR picture: a kernel that was estimated, and rounding, limit what the
latter says."""

_TOLERANCE: Final = 1e-5
_MAX_STEPS: Final = 200


def enforce_data_consistency(picture: Tensor, lr: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """The canvas `[1,3,h,w]` nearest to `picture` that gives `lr` `[1,3,H,W]` under `kernel`."""

    def system(values: Tensor) -> Tensor:
        return degrade(degrade_adjoint(values, kernel, scale), kernel, scale) + TRUST * values

    missed = lr - degrade(picture, kernel, scale)
    return picture + degrade_adjoint(_solved(system, missed), kernel, scale)


def _solved(system: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """Conjugate gradients: `values` with `system(values)` = `wanted`, within `_TOLERANCE`."""
    values = wanted.new_zeros(wanted.shape)
    left, direction = wanted, wanted
    size = left.square().sum()
    enough = _TOLERANCE**2 * size
    for _ in range(_MAX_STEPS):
        if size <= enough:
            break
        moved = system(direction)
        step = size / (direction * moved).sum()
        values = values + step * direction
        left = left - step * moved
        before, size = size, left.square().sum()
        direction = left + size / before * direction
    return values
