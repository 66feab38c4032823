"""The data-consistency step: makes an HR image agree with the LR image, in closed form.

An HR image (bicubic, or of a network that is not fully fitted) degraded by a blur kernel differs
from the LR image. The nearest image that agrees is the solution of a least-squares problem:
minimise |A x - lr|^2 + TRUST |x - image|^2 over x, where A blurs and samples. By the Woodbury
identity that is a system of the size of the LR image,

    x = image + A^T (A A^T + TRUST)^-1 (lr - A image),

which is conditioned well enough for conjugate gradients. On a padded HR image (`forward_model`)
nothing is assumed about the border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor

from ikc_deploy.offline.forward_model import degrade, degrade_adjoint

TRUST: Final = 1e-2
"""Weight of the HR image relative to the LR image, whose information is limited by rounding and by
the error of an estimated kernel."""

_TOLERANCE: Final = 1e-5
_MAX_STEPS: Final = 200


def enforce_data_consistency(picture: Tensor, lr: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """Return the padded HR image nearest to `picture` that degrades to `lr`.

    Args:
        picture: Padded HR image `[1,3,h,w]` in [0,1] (see `forward_model.PaddedHr`).
        lr: LR image `[1,3,H,W]` in [0,1].
        kernel: Blur kernel `[k,k]`, sum 1, in the FKP convention.
        scale: Scale factor.
    """

    def system(values: Tensor) -> Tensor:
        return degrade(degrade_adjoint(values, kernel, scale), kernel, scale) + TRUST * values

    missed = lr - degrade(picture, kernel, scale)
    return picture + degrade_adjoint(_solved(system, missed), kernel, scale)


def _solved(system: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """Solve `system(values)` = `wanted` within `_TOLERANCE` by conjugate gradients."""
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
