"""The data-consistency step: the HR image nearest to a given one that degrades to the LR image.

A bicubic image, or that of a network that is not fully fitted, does not degrade to the LR image
exactly. The nearest image that does minimises |A x - lr|^2 + w |x - image|^2 over x, where A blurs
and samples and w is `REGULARIZATION`. By the Woodbury identity the solution is

    x = image + A^T (A A^T + w)^-1 (lr - A image),

a system of the size of the LR image, well-conditioned for conjugate gradients. A padded HR image
(`forward_model`) needs no assumption about the border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor

from ikc_deploy.offline.forward_model import degrade, degrade_adjoint

REGULARIZATION: Final = 1e-2
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
        return (
            degrade(degrade_adjoint(values, kernel, scale), kernel, scale) + REGULARIZATION * values
        )

    residual = lr - degrade(picture, kernel, scale)
    return picture + degrade_adjoint(_conjugate_gradients(system, residual), kernel, scale)


def _conjugate_gradients(system: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """Solve `system(values)` = `target` within `_TOLERANCE` by conjugate gradients."""
    values = target.new_zeros(target.shape)
    residual, direction = target, target
    size = residual.square().sum()
    tolerance = _TOLERANCE**2 * size
    for _ in range(_MAX_STEPS):
        if size <= tolerance:
            break
        product = system(direction)
        step = size / (direction * product).sum()
        values = values + step * direction
        residual = residual - step * product
        previous, size = size, residual.square().sum()
        direction = residual + size / previous * direction
    return values
