"""Centred isotropic and anisotropic Gaussian blur kernels."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.arguments import is_whole, real_array
from ikc_deploy.errors import KernelError
from ikc_deploy.text import shown

KERNEL_SIZE: Final = 21
"""Side of a blur kernel in pixels of the HR image (IKC, section 4.1)."""

SIGMA_RANGES: Final[dict[int, tuple[float, float]]] = {2: (0.2, 2.0), 3: (0.2, 3.0), 4: (0.2, 4.0)}
"""Range of the Gaussian's sigma for each scale, in HR pixels (IKC, section 4.1)."""

Family = Literal["isotropic", "anisotropic"]
"""Family of Gaussians: circular, or elliptic with any direction."""

FIT_SAMPLES: Final = 4096
"""Number of sigmas that sample a range."""

_FIT_AXES: Final = (24, 24, 24)
"""Number of sigmas along each axis, and of directions, of the ellipses in a fit."""


def gaussian_kernel(sigma: ArrayLike, size: int = KERNEL_SIZE) -> NDArray[np.float64]:
    """Return isotropic Gaussian blur kernels, sampled at pixel centres and normalised to sum 1.

    Args:
        sigma: Standard deviation in HR pixels, any shape `S`, each value > 0.
        size: Side of a kernel in pixels, odd.

    Returns:
        float64 `[*S, size, size]`, a new array.

    Raises:
        KernelError: A sigma is not positive and finite, or the size is not odd.

    Example:
        >>> from ikc_deploy import gaussian_kernel
        >>> gaussian_kernel([1.0, 2.0]).shape
        (2, 21, 21)
    """
    sigmas = real_array(sigma, "sigma", KernelError, finite=False)
    if not np.all(np.isfinite(sigmas)) or np.any(sigmas <= 0):
        raise KernelError(f"sigma must be positive and finite, got {shown(sigma)}")
    if not is_whole(size, 1) or size % 2 == 0:
        raise KernelError(f"a kernel's size must be odd and positive, got {shown(size)}")
    offsets = np.arange(size) - size // 2
    # The kernel is separable; normalising the profile normalises the kernel.
    profile = np.exp(-0.5 * (offsets / sigmas[..., None]) ** 2)
    profile /= profile.sum(axis=-1, keepdims=True)
    return profile[..., :, None] * profile[..., None, :]


def anisotropic_kernel(
    sigma1: ArrayLike, sigma2: ArrayLike, theta: ArrayLike, size: int = KERNEL_SIZE
) -> NDArray[np.float64]:
    """Return anisotropic Gaussian blur kernels, sampled at pixel centres and normalised to sum 1.

    Args:
        sigma1: Standard deviation in direction `theta`, in HR pixels, > 0.
        sigma2: Standard deviation perpendicular to it. All three are broadcast to a shape `S`.
        theta: Angle in radians from the x axis towards the y axis, which points down.
        size: Side of a kernel in pixels, odd.

    Returns:
        float64 `[*S, size, size]`, a new array.

    Raises:
        KernelError: A value is out of range or not finite.
    """
    along, across, angle = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (sigma1, sigma2, theta))
    )
    if not all(np.all(np.isfinite(v)) for v in (along, across, angle)):
        raise KernelError("sigma1, sigma2 and theta must be finite")
    if np.any(along <= 0) or np.any(across <= 0):
        raise KernelError(f"sigma1 and sigma2 must be positive, got {sigma1!r} and {sigma2!r}")
    if size < 1 or size % 2 == 0:
        raise KernelError(f"a kernel's size must be odd and positive, got {size}")
    y, x = np.mgrid[:size, :size] - size // 2
    kernel = ellipse(along, across, angle, x, y)
    return kernel / kernel.sum(axis=(-2, -1), keepdims=True)


def ellipse(
    along: NDArray[np.float64],
    across: NDArray[np.float64],
    theta: NDArray[np.float64],
    x: NDArray[np.floating] | NDArray[np.integer],
    y: NDArray[np.floating] | NDArray[np.integer],
) -> NDArray[np.float64]:
    """Return elliptic Gaussians of shape `S`, 1 at the centre, at x, y `[h,w]`: `[*S,h,w]`."""
    cosine, sine = (f(theta)[..., None, None] for f in (np.cos, np.sin))
    u = (cosine * x + sine * y) / along[..., None, None]
    v = (cosine * y - sine * x) / across[..., None, None]
    return np.exp(-0.5 * (u * u + v * v))


def family_kernels(
    family: Family, sigma_range: tuple[float, float], size: int = KERNEL_SIZE
) -> NDArray[np.float64]:
    """Return kernels `[N, size, size]` that sample a family, with uniform sigmas.

    Raises:
        KernelError: The family, the range or the size is invalid.
    """
    if not isinstance(family, str) or family not in get_args(Family):
        raise KernelError(
            f"family must be one of {', '.join(get_args(Family))}, got {shown(family)}"
        )
    low_high = real_array(sigma_range, "a sigma range", KernelError)
    if low_high.shape != (2,) or not 0 < low_high[0] < low_high[1]:
        raise KernelError(f"a sigma range needs 0 < low < high, got {shown(sigma_range)}")
    if not is_whole(size, 1) or size % 2 == 0:
        raise KernelError(f"a kernel's size must be odd and positive, got {shown(size)}")
    if family == "isotropic":
        return gaussian_kernel(np.linspace(*sigma_range, FIT_SAMPLES), size)
    first, second, directions = _FIT_AXES
    sigma1 = np.linspace(*sigma_range, first)[:, None, None]
    sigma2 = np.linspace(*sigma_range, second)[None, :, None]
    theta = np.arange(directions) * np.pi / directions
    return anisotropic_kernel(sigma1, sigma2, theta, size).reshape(-1, size, size)
