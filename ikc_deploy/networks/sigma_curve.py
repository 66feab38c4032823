"""The map between sigma and kernel code, inside a graph.

The isotropic Gaussians form a curve in code space. Estimators that predict sigma and compute the
code from this curve train well; with the mean squared error of raw codes they do not: nine tenths
of its variance is at sigma < 1, while x4 is used at sigma 1.8 and above.

Both directions are piecewise linear, written as a sum of ramps, y0 + sum_j d_j relu(x - x_j):
subtraction, ReLU and one matrix product, which every inference engine runs.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.kernels import KernelBasis, gaussian_kernel

_STEP = 0.02
"""Distance of the knots in sigma; linear interpolation errs by less than 1e-3 in any code."""
_MIN_RISE = 1e-3
"""Smallest rise of the second moment between knots, in pixels squared: below it (sigma < 0.3,
where the kernel is a delta) rounding would determine the result."""


class PiecewiseLinear(nn.Module):
    """A function through knots, constant outside them: `[N, 1]` to `[N, outputs]`, float32.

    Args:
        knots: Number of knots.
        outputs: Number of values of the function.
    """

    def __init__(self, knots: int, outputs: int) -> None:
        super().__init__()
        self.knots = knots
        self.register_buffer("x", torch.zeros(knots))
        self.register_buffer("start", torch.zeros(outputs))
        self.register_buffer("bends", torch.zeros(knots - 1, outputs))

    def set_knots(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Set the knots x `[K]`, increasing, and the values y `[K, outputs]`."""
        slopes = np.diff(y, axis=0) / np.diff(x)[:, None]
        bends = np.diff(slopes, axis=0, prepend=np.zeros((1, y.shape[1])))
        for name, values in (("x", x), ("start", y[0]), ("bends", bends)):
            buffer = cast(Tensor, getattr(self, name))
            buffer.copy_(torch.from_numpy(values))

    def forward(self, x: Tensor) -> Tensor:
        """Return y `[N, outputs]` of x `[N, 1]`."""
        knots = cast(Tensor, self.x)
        inside = torch.minimum(torch.maximum(x, knots[0]), knots[-1])
        ramps = torch.relu(inside - knots[:-1])
        return cast(Tensor, self.start) + ramps @ cast(Tensor, self.bends)


class SigmaCurve(nn.Module):
    """The parametrization of isotropic Gaussians: their curve in the code space of one basis.

    `fit_to` sets the knots once, when networks are created for training; afterwards they are part
    of the checkpoint.

    Args:
        code_size: Number of components of a code.
        sigma_range: Minimum and maximum sigma in HR pixels.
    """

    parameter_count = 1

    def __init__(self, code_size: int, sigma_range: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.high = sigma_range
        knots = round((self.high - self.low) / _STEP) + 1
        self.to_code = PiecewiseLinear(knots, code_size)
        self.from_moment = PiecewiseLinear(knots, 1)
        self.register_buffer("moment", torch.zeros(code_size, 1))

    def fit_to(self, basis: KernelBasis) -> None:
        """Set the knots from the curve of `basis`."""
        sigmas = np.linspace(self.low, self.high, self.to_code.knots)
        codes = basis.encode(gaussian_kernel(sigmas, basis.kernel_size)).astype(np.float64)
        self.to_code.set_knots(sigmas, codes)

        # A kernel's second moment is linear in the kernel, so affine in the code, and rises with
        # sigma: the inverse of the curve costs one product instead of a search.
        offsets = np.arange(basis.kernel_size) - basis.kernel_size // 2
        squares = 0.5 * (offsets[:, None] ** 2 + offsets[None, :] ** 2)
        direction = basis.components.astype(np.float64).T @ squares.ravel()
        cast(Tensor, self.moment).copy_(torch.from_numpy(direction[:, None]))
        moments, reached = increasing(codes @ direction, sigmas)
        self.from_moment.set_knots(moments, reached[:, None])

    def code(self, parameters: Tensor) -> Tensor:
        """Return the codes `[N, code_size]` of sigma `[N, 1]` in HR pixels, clamped."""
        return cast(Tensor, self.to_code(parameters))

    def kernel_parameters(self, code: Tensor) -> Tensor:
        """Return sigma `[N, 1]` of codes `[N, code_size]` on (or near) the curve."""
        return cast(Tensor, self.from_moment(code @ cast(Tensor, self.moment)))


def increasing(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return as many knots, with those that do not rise by `_MIN_RISE` moved past the end.

    Past the end the ramps never start, so the moved knots have no effect, and the number of knots
    depends on the range alone (checkpoints need fixed shapes).
    """
    kept = [len(x) - 1]
    for index in range(len(x) - 2, -1, -1):
        if x[kept[-1]] - x[index] >= _MIN_RISE:
            kept.append(index)
    kept.reverse()
    missing = len(x) - len(kept)
    tail = x[-1] + np.arange(1, missing + 1)
    return np.concatenate([x[kept], tail]), np.concatenate([y[kept], np.full(missing, y[-1])])
