"""Kernel parametrizations: maps between the few parameters of a blur and its kernel code.

An estimator that predicts the parameters and computes the code from them trains well. One that is
trained on raw codes with a mean squared error does not: nine tenths of its variance is at
sigma < 1, while x4 is used at sigma 1.8 and above. A parametrization is a module with
`parameter_count` parameters, sigmas from `low` to `high`, the map `code` and its inverse
`kernel_parameters`.

**Isotropic Gaussians** form a curve in code space, and the parameter is sigma. Both directions are
piecewise linear, written as a sum of ramps, y0 + sum_j d_j relu(x - x_j): subtraction, ReLU and one
matrix product, which every inference engine runs.

**Elliptic Gaussians** have three parameters, the *spread*: the symmetric square root of the
covariance, in HR pixels:

    [[p + q, t], [t, p - q]]    stored as `[N,3]` = (p, q, t)

Its eigenvalues are the two sigmas: p is their mean, and (q, t) is half their difference along
(cos 2 theta, sin 2 theta). All three are lengths, isotropic blur is (sigma, 0, 0), and unlike an
angle they have no discontinuity. An isotropic Gaussian may be given as `[N,1]` = (sigma).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.kernels import KERNEL_SIZE, KernelBasis, gaussian_kernel
from ikc_deploy.networks.architecture import Architecture

_STEP = 0.02
"""Distance of the knots in sigma; linear interpolation errs by less than 1e-3 in any code."""
_MIN_RISE = 1e-3
"""Smallest rise of the second moment between knots, in pixels squared: below it (sigma < 0.3,
where the kernel is a delta) rounding would determine the result."""
_ROUND = 1e-6
"""Addend of a squared half difference of sigmas before its root: at 0 it has no direction."""


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
        moments, reached = _increasing(codes @ direction, sigmas)
        self.from_moment.set_knots(moments, reached[:, None])

    def code(self, parameters: Tensor) -> Tensor:
        """Return the codes `[N, code_size]` of sigma `[N, 1]` in HR pixels, clamped."""
        return cast(Tensor, self.to_code(parameters))

    def kernel_parameters(self, code: Tensor) -> Tensor:
        """Return sigma `[N, 1]` of codes `[N, code_size]` on (or near) the curve."""
        return cast(Tensor, self.from_moment(code @ cast(Tensor, self.moment)))


class EllipseParametrization(nn.Module):
    """The map from spread to code for elliptic Gaussians, and its approximate inverse.

    The inverse reads the second moments of the decoded kernel, which are affine in the code. It is
    inexact because the basis drops part of the kernel and the square support truncates it.
    `fit_to` sets the buffers once; afterwards they are part of the checkpoint.

    Args:
        code_size: Number of components of a code.
        sigma_range: Minimum and maximum sigma in HR pixels.
    """

    parameter_count = 3

    def __init__(self, code_size: int, sigma_range: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.high = sigma_range
        knots = round((self.high - self.low) / _STEP) + 1
        pixels = KERNEL_SIZE * KERNEL_SIZE
        self.from_moment = PiecewiseLinear(knots, 1)
        self.register_buffer("components", torch.zeros(pixels, code_size))
        self.register_buffer("moments", torch.zeros(code_size, 3))
        self.register_buffer("dropped", torch.zeros(3))

    def fit_to(self, basis: KernelBasis) -> None:
        """Set the buffers from the components and moments of `basis`."""
        size, components = basis.kernel_size, basis.components.astype(np.float64)
        y, x = (axis.ravel() for axis in np.mgrid[:size, :size] - size // 2)
        squares = np.stack((0.5 * (x * x + y * y), 0.5 * (x * x - y * y), 1.0 * x * y), axis=1)
        mean = basis.mean.astype(np.float64)
        dropped = mean - components @ (components.T @ mean)
        sigmas = np.linspace(self.low, self.high, self.from_moment.knots)
        profile = gaussian_kernel(sigmas, size).sum(axis=1)
        along = profile @ (np.arange(size) - size // 2) ** 2.0
        moments, reached = _increasing(along, sigmas)
        self.from_moment.set_knots(moments, reached[:, None])
        for name, values in (
            ("components", components),
            ("moments", components.T @ squares),
            ("dropped", dropped @ squares),
        ):
            cast(Tensor, getattr(self, name)).copy_(torch.from_numpy(values))

    def code(self, parameters: Tensor) -> Tensor:
        """Return the codes `[N,code_size]` of spread `[N,3]`, its sigmas clamped to the range."""
        half = torch.sqrt((parameters[:, 1:] ** 2).sum(dim=1, keepdim=True) + _ROUND)
        sigmas = [(parameters[:, :1] + s * half).clamp(self.low, self.high) for s in (1, -1)]
        clamped = 0.5 * (sigmas[0] - sigmas[1]) / half * parameters[:, 1:]
        inside = torch.cat((0.5 * (sigmas[0] + sigmas[1]), clamped), dim=1)
        return gaussian_kernels(inside, KERNEL_SIZE).flatten(1) @ cast(Tensor, self.components)

    def kernel_parameters(self, code: Tensor) -> Tensor:
        """Return the spread `[N,3]` of codes `[N,code_size]` of (or near) elliptic Gaussians."""
        moments = code @ cast(Tensor, self.moments) + cast(Tensor, self.dropped)
        mean, direction = moments[:, :1], moments[:, 1:]
        half = torch.sqrt((direction**2).sum(dim=1, keepdim=True) + _ROUND)
        first, second = self.from_moment(mean + half), self.from_moment(mean - half)
        return torch.cat((0.5 * (first + second), 0.5 * (first - second) / half * direction), dim=1)


KernelParametrization = SigmaCurve | EllipseParametrization


def build_parametrization(settings: Architecture) -> KernelParametrization:
    """Return the parametrization of the architecture's family of kernels.

    Call `fit_to` with a basis, or load a checkpoint, before use.
    """
    kind = SigmaCurve if settings.kernels == "isotropic" else EllipseParametrization
    return kind(settings.code_size, settings.sigma_range)


def gaussian_kernels(parameters: Tensor, size: int) -> Tensor:
    """Return Gaussian kernels with sum 1.

    Args:
        parameters: Spread `[N,1]` or `[N,3]` in pixels, floating point, on any device.
        size: Side of the kernels in pixels, odd.

    Returns:
        Kernels `[N,size,size]` of the dtype and on the device of `parameters`; differentiable.
    """
    offsets = torch.arange(size, device=parameters.device, dtype=parameters.dtype) - size // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    return _densities(parameters, x.flatten(), y.flatten()).reshape(-1, size, size)


def ellipse_parameters(sigma1: Tensor, sigma2: Tensor, theta: Tensor) -> Tensor:
    """Return the spread `[N,3]` of sigmas `[N]` along and across theta `[N]` (radians)."""
    mean, half = 0.5 * (sigma1 + sigma2), 0.5 * (sigma1 - sigma2)
    return torch.stack((mean, half * torch.cos(2 * theta), half * torch.sin(2 * theta)), dim=1)


def _densities(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return normalised densities `[N,P]` at the positions x, y `[P]`."""
    mean = parameters[:, :1]
    if parameters.shape[1] == 1:
        squares = (x * x + y * y) / (mean * mean)
    else:
        q, t = parameters[:, 1:2], parameters[:, 2:]
        # The inverse of a symmetric 2x2 matrix is its adjugate over its determinant.
        determinant = mean * mean - q * q - t * t
        u = ((mean - q) * x - t * y) / determinant
        v = ((mean + q) * y - t * x) / determinant
        squares = u * u + v * v
    density = torch.exp(-0.5 * squares)
    return density / density.sum(dim=1, keepdim=True)


def _increasing(
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
