"""The FKP convention for blur kernels, its family of kernels, and conversion from and to ours.

There are two conventions for how an HR image becomes an LR image.

*Our convention* (IKC): correlate with a centred kernel, with a reflected border, and downscale
bicubically. Bicubic downscaling blurs, too, and centres an LR pixel on its scale x scale HR pixels.

*FKP convention*: correlate with a kernel, with a wrapped border, and take every scale-th pixel from
the top left corner. The kernel contains all of the blur, and its centre determines where the LR
pixels lie. FKP's kernels have their centre of mass at (k - scale) / 2 pixels from the first pixel.
That is (scale - 1) / 2 above and left of pixel 0, whereas bicubic downscaling lies (scale - 1) / 2
below and right of it. So images of the two conventions lie `lag(scale)` HR pixels apart along both
axes, and are equal after a shift of the HR image:

    ours(hr, kernel) = degrade_fkp(np.roll(hr, (-lag, -lag), (0, 1)), to_fkp(kernel))

away from the border. (A true convolution with the same kernel would lie where ours does; the
reference implementation did not compute its images that way.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.kernels.bicubic import downscaling_taps
from ikc_deploy.kernels.gaussians import KERNEL_SIZE, ellipse

FKP_SCALES: Final = (2, 3, 4)

_MAX_SIZE: Final = 21
_NARROWEST: Final = 0.175
_WIDEST: Final = 2.5
_MAX_VARIANCE: Final = 10.0
_MEAN_STEPS: Final = 16
_DAMPING: Final = 1e-2
"""Gain of downscaling below which frequencies are not recovered: in an estimated kernel they are
noise."""


def fkp_size(scale: int) -> int:
    """Return the side k of FKP's kernels in HR pixels: 11, 15, 19 for scale 2, 3, 4.

    Raises:
        KernelError: `scale` is not 2, 3 or 4.
    """
    if scale not in FKP_SCALES:
        raise KernelError(f"FKP has kernels for scale 2, 3 and 4, got {scale!r}")
    return min(4 * scale + 3, _MAX_SIZE)


def fkp_variances(scale: int) -> tuple[float, float]:
    """Return the smallest and largest variance of FKP's Gaussians, in HR pixels squared.

    Raises:
        KernelError: `scale` is not 2, 3 or 4.
    """
    fkp_size(scale)
    return _NARROWEST * scale, min(_WIDEST * scale, _MAX_VARIANCE)


def lag(scale: int) -> int:
    """Return by how many HR pixels images of the two conventions differ, down and right.

    Images of the FKP convention lie further down and right than those of our convention.
    """
    return scale - 1


def shifted_gaussian(
    variance1: ArrayLike, variance2: ArrayLike, theta: ArrayLike, scale: int
) -> NDArray[np.float64]:
    """Return FKP's elliptic Gaussians: centre of mass at (k - scale) / 2 along both axes, sum 1.

    They are computed as in the reference implementation of FKP: sampled, cut off at the edges of
    the square, then shifted by cubic splines. The shift leaves zeros on one side, and overshoots
    below zero by less than a thousandth of the peak.

    Args:
        variance1: Variance along the direction `theta`, in HR pixels squared, > 0.
        variance2: Variance across it. The three broadcast to a shape `S`.
        theta: Direction in radians, from the x axis towards the y axis, which points down.
        scale: 2, 3 or 4.

    Returns:
        float64 `[*S,k,k]` with k = `fkp_size(scale)`.

    Raises:
        KernelError: A value is out of range or not finite.
    """
    size = fkp_size(scale)
    along, across, angle = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (variance1, variance2, theta))
    )
    if not all(np.all(np.isfinite(v)) for v in (along, across, angle)):
        raise KernelError("the variances and theta must be finite")
    if np.any(along <= 0) or np.any(across <= 0):
        raise KernelError(f"variances must be positive, got {variance1!r} and {variance2!r}")
    pixels = np.arange(size, dtype=np.float64)
    offsets = pixels - (size + scale - 2) / 2
    raw = ellipse(np.sqrt(along), np.sqrt(across), angle, offsets[None, :], offsets[:, None])
    raw /= raw.sum(axis=(-2, -1), keepdims=True)
    place = (size - scale) / 2
    rows = _moving(place - raw.sum(axis=-1) @ pixels, size)
    columns = _moving(place - raw.sum(axis=-2) @ pixels, size)
    kernel = rows @ raw @ np.swapaxes(columns, -1, -2)
    return kernel / kernel.sum(axis=(-2, -1), keepdims=True)


def random_fkp_kernels(random: np.random.Generator, count: int, scale: int) -> NDArray[np.float64]:
    """Return random kernels `[count,k,k]` with FKP's uniform variances and directions."""
    low, high = fkp_variances(scale)
    variance1, variance2 = random.uniform(low, high, (2, count))
    return shifted_gaussian(variance1, variance2, random.uniform(0, np.pi, count), scale)


@lru_cache
def mean_fkp_kernel(scale: int) -> NDArray[np.float64]:
    """Return the mean `[k,k]` of FKP's kernels, read-only: the best guess without an image."""
    low, high = fkp_variances(scale)
    middles = (np.arange(_MEAN_STEPS) + 0.5) / _MEAN_STEPS
    variances, angles = low + (high - low) * middles, np.pi * middles
    kernels = shifted_gaussian(variances[:, None, None], variances[:, None], angles, scale)
    mean = kernels.mean(axis=(0, 1, 2))
    mean.setflags(write=False)
    return mean


def degrade_fkp(
    hr: NDArray[np.uint8], kernel: NDArray[np.floating], scale: int
) -> NDArray[np.float64]:
    """Return the LR image of an HR image and a kernel in the FKP convention.

    The HR image is correlated with the kernel, with a wrapped border, then sampled at every
    scale-th pixel from the top left corner.

    Args:
        hr: HR image `[H,W,3]` in 8-bit levels; H and W are multiples of `scale`.
        kernel: Kernel `[k,k]`, k odd.
        scale: Scale factor.

    Returns:
        LR image `[H/scale,W/scale,3]`, float64 in 8-bit levels, not rounded.

    Raises:
        InputError: A side of `hr` is not a multiple of `scale`.
        KernelError: The kernel is not square with an odd side.
    """
    side = _odd_side(kernel)
    height, width = hr.shape[:2]
    if height % scale or width % scale or not height or not width:
        raise InputError(
            f"the sides of an HR image must be multiples of {scale}, got {width}x{height}: crop it"
        )
    # A kernel wider than the image wraps around too. Its weight at offset o meets pixel p + o.
    offsets = side // 2 - np.arange(side)
    wrapped = np.zeros((height, width))
    np.add.at(wrapped, (offsets[:, None] % height, offsets[None, :] % width), kernel)
    transfer = np.fft.rfft2(wrapped)[:, :, None]
    spectrum = np.fft.rfft2(hr.astype(np.float64), axes=(0, 1)) * transfer
    blurred = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return blurred[::scale, ::scale]


def to_fkp(kernel: NDArray[np.floating], scale: int) -> NDArray[np.float64]:
    """Return our blur and bicubic downscaling as one kernel in the FKP convention; exact.

    The module docstring describes the shift between images of the two conventions.

    Args:
        kernel: Centred kernel `[n,n]` of our convention, n odd.
        scale: Scale factor.

    Returns:
        float64 `[m,m]`, larger by the width of the bicubic filter: m = 29, 33 and 39 for n = 21 at
        scale 2, 3 and 4.

    Raises:
        KernelError: The kernel is not square with an odd side.
    """
    downscaling = _downscaling(_odd_side(kernel), scale)
    return downscaling @ kernel.astype(np.float64) @ downscaling.T


def to_ours(kernel: NDArray[np.floating], scale: int) -> tuple[NDArray[np.float64], float]:
    """Return the kernel of our convention that is nearest to a kernel of the FKP convention.

    Args:
        kernel: Kernel `[k,k]`, k odd, in the FKP convention.
        scale: Scale factor.

    Returns:
        The centred kernel `[21,21]`, sum 1, and the relative error: the norm of
        `to_fkp(result) - kernel` divided by that of `kernel`. It is small for kernels at least as
        wide as the bicubic filter, which is part of every blur in our convention.

    Raises:
        KernelError: The kernel is not square with an odd side.
    """
    side = _odd_side(kernel)
    downscaling = _downscaling(KERNEL_SIZE, scale)
    reach = max(side, len(downscaling))
    downscaling = np.pad(downscaling, ((_margin(len(downscaling), reach),) * 2, (0, 0)))
    wanted = np.pad(kernel.astype(np.float64), _margin(side, reach))
    # Damped least squares; the two axes have the same singular vectors.
    left, singular, right = np.linalg.svd(downscaling, full_matrices=False)
    gains = np.outer(singular, singular)
    found = right.T @ (gains / (gains**2 + _DAMPING**2) * (left.T @ wanted @ left)) @ right
    found /= found.sum()
    error = np.linalg.norm(downscaling @ found @ downscaling.T - wanted) / np.linalg.norm(wanted)
    return found, float(error)


def _odd_side(kernel: NDArray[np.floating]) -> int:
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise KernelError(f"a kernel must be square with an odd side, got {list(kernel.shape)}")
    return len(kernel)


def _margin(side: int, size: int) -> int:
    return (size - side) // 2


@lru_cache
def _downscaling(side: int, scale: int) -> NDArray[np.float64]:
    """Return the matrix `[m,side]` from one axis of our centred kernel to one of FKP's kernel."""
    offsets, weights = downscaling_taps(scale)
    offsets = offsets - lag(scale)
    reach = side // 2 + int(np.abs(offsets).max())
    matrix = np.zeros((2 * reach + 1, side))
    columns = np.arange(side)
    for offset, weight in zip(offsets, weights, strict=True):
        matrix[reach + offset + columns - side // 2, columns] = weight
    matrix.setflags(write=False)
    return matrix


def _moving(shift: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the matrix `[*S,size,size]` that shifts `size` samples by `shift` `[*S]` pixels.

    It interpolates with a cubic spline. Samples from outside are 0.
    """
    places = np.arange(size) - shift[..., None]
    weights = _spline(places[..., None] - np.arange(-1, size + 1))
    weights[(places < 0) | (places > size - 1)] = 0
    # The samples are mirrored at both ends, which are not repeated.
    weights[..., 2] += weights[..., 0]
    weights[..., -3] += weights[..., -1]
    return weights[..., 1:-1] @ _spline_coefficients(size)


def _spline(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cubic B-spline at distances x."""
    x = np.abs(x)
    near = 2 / 3 - x**2 + x**3 / 2
    far = (2 - x) ** 3 / 6
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache
def _spline_coefficients(size: int) -> NDArray[np.float64]:
    """Return the matrix `[size,size]` from samples to the coefficients of their spline."""
    samples = 2 / 3 * np.eye(size)
    samples += (np.eye(size, k=1) + np.eye(size, k=-1)) / 6
    samples[0, 1] = samples[-1, -2] = 1 / 3
    return np.asarray(np.linalg.inv(samples), np.float64)
