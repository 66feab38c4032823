"""Elliptic Gaussians inside a graph: from spread to kernel and kernel code, and back.

The *spread* of a Gaussian is the symmetric square root of its covariance, in HR pixels:

    [[p + q, t], [t, p - q]]    stored as `[N,3]` = (p, q, t)

Its eigenvalues are the two sigmas: p is their mean, and (q, t) is half their difference along
(cos 2 theta, sin 2 theta). All three are lengths, isotropic blur is (sigma, 0, 0), and unlike an
angle they have no discontinuity. An isotropic Gaussian may be given as `[N,1]` = (sigma).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ikc_deploy.kernels import KERNEL_SIZE, KernelBasis, gaussian_kernel
from ikc_deploy.networks.sigma_curve import PiecewiseLinear, increasing

_STEP = 0.02
"""Distance of the knots of the map from second moments to sigmas, in sigma."""
_ROUND = 1e-6
"""Addend of a squared half difference of sigmas before its root: at 0 it has no direction."""


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
        moments, reached = increasing(along, sigmas)
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
