"""The FKP convention for blur kernels, its family of kernels, and conversion from and to ours.

There are two ways of writing down what makes an LR picture of an HR one.

*Ours* (IKC): correlate with a centred kernel, the border reflected, and shrink bicubically. Bicubic
shrinking blurs too, and puts an LR pixel into the middle of its scale x scale HR pixels.

*FKP*: correlate with a kernel, the picture wrapping around, and take every scale-th pixel from the
top left corner. All blur is in the kernel, and its place says where the LR pixels lie: FKP's
kernels have their centre of mass at (k - scale) / 2 pixels from the first, which is (scale - 1) / 2
above and left of pixel 0, where bicubic shrinking is as much below and right of it. So pictures of
the two conventions lie `lag(scale)` HR pixels apart in both directions. What is the same blur is
that of a picture moved by so much:

    ours(hr, kernel) = degrade_fkp(np.roll(hr, (-lag, -lag), (0, 1)), to_fkp(kernel))

away from the border. (The true convolution of the same kernel would lie where ours does; that is
not how the reference's pictures were made.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.kernels.bicubic import shrinking_taps
from ikc_deploy.kernels.gaussians import KERNEL_SIZE, ellipse

FKP_SCALES: Final = (2, 3, 4)

_MAX_SIZE: Final = 21
_NARROWEST: Final = 0.175
_WIDEST: Final = 2.5
_MAX_VARIANCE: Final = 10.0
_MEAN_STEPS: Final = 16
_DAMPING: Final = 1e-2
"""Frequencies that shrinking leaves less of than this are not restored: what a kernel says of them
is noise of its estimate."""


def fkp_size(scale: int) -> int:
    """Side k of FKP's kernels: 11, 15, 19 for x2, x3, x4. Raises `KernelError` for other scales."""
    if scale not in FKP_SCALES:
        raise KernelError(f"FKP has kernels for scale 2, 3 and 4, got {scale!r}")
    return min(4 * scale + 3, _MAX_SIZE)


def fkp_variances(scale: int) -> tuple[float, float]:
    """Smallest and largest variance of FKP's Gaussians along an axis, in HR pixels squared."""
    fkp_size(scale)
    return _NARROWEST * scale, min(_WIDEST * scale, _MAX_VARIANCE)


def lag(scale: int) -> int:
    """HR pixels that a picture lies further down and right in the FKP convention than in ours."""
    return scale - 1


def shifted_gaussian(
    variance1: ArrayLike, variance2: ArrayLike, theta: ArrayLike, scale: int
) -> NDArray[np.float64]:
    """FKP's elliptic Gaussians: centre of mass at (k - scale) / 2 along both axes, sum 1.

    `variance1` lies along the direction `theta` (radians, from the x axis towards the y axis,
    which points down) and `variance2` across it, in HR pixels squared. The three broadcast to a
    shape `S`; returns float64 `[*S,k,k]`. As the reference makes them: sampled, cut off by the
    square, then moved into place by cubic splines, which leaves zeros on the side that they came
    from and overshoots below zero by less than a thousandth of the peak.
    Raises `KernelError` for impossible values.
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
    """Kernels `[count,k,k]` drawn as FKP draws them: variances and direction uniform."""
    low, high = fkp_variances(scale)
    variance1, variance2 = random.uniform(low, high, (2, count))
    return shifted_gaussian(variance1, variance2, random.uniform(0, np.pi, count), scale)


@lru_cache
def mean_fkp_kernel(scale: int) -> NDArray[np.float64]:
    """The mean `[k,k]` of FKP's kernels, read-only: what is known of a kernel without looking."""
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
    """The LR image `[H/s,W/s,3]`, not rounded, of an HR image `[H,W,3]` and a kernel `[k,k]`.

    k is odd. Correlated with the image wrapping around, then sampled from the top left corner.
    Raises `InputError` for sides that are no multiples of `scale`, `KernelError` for a kernel of
    another shape.
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
    """Our blur and bicubic shrinking as one kernel in the FKP convention; exact.

    A centred kernel `[n,n]`, n odd, gives `[m,m]`, larger by the reach of the bicubic filter: 29,
    33 and 39 for n = 21 at x2, x3 and x4. See the module for where the picture then lies.
    """
    shrinking = _shrinking(_odd_side(kernel), scale)
    return shrinking @ kernel.astype(np.float64) @ shrinking.T


def to_ours(kernel: NDArray[np.floating], scale: int) -> tuple[NDArray[np.float64], float]:
    """The centred kernel `[21,21]`, sum 1, that under our convention does what `kernel` does.

    `kernel` `[k,k]`, k odd, is in the FKP convention. Returns also the relative error: the norm of
    `to_fkp(result) - kernel` over that of `kernel`. It is small for kernels at least as wide
    as the bicubic filter, which our convention cannot do without.
    """
    side = _odd_side(kernel)
    shrinking = _shrinking(KERNEL_SIZE, scale)
    reach = max(side, len(shrinking))
    shrinking = np.pad(shrinking, ((_margin(len(shrinking), reach),) * 2, (0, 0)))
    wanted = np.pad(kernel.astype(np.float64), _margin(side, reach))
    # Damped least squares; the two axes have the same singular vectors.
    left, singular, right = np.linalg.svd(shrinking, full_matrices=False)
    gains = np.outer(singular, singular)
    found = right.T @ (gains / (gains**2 + _DAMPING**2) * (left.T @ wanted @ left)) @ right
    found /= found.sum()
    error = np.linalg.norm(shrinking @ found @ shrinking.T - wanted) / np.linalg.norm(wanted)
    return found, float(error)


def _odd_side(kernel: NDArray[np.floating]) -> int:
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise KernelError(f"a kernel must be square with an odd side, got {list(kernel.shape)}")
    return len(kernel)


def _margin(side: int, size: int) -> int:
    return (size - side) // 2


@lru_cache
def _shrinking(side: int, scale: int) -> NDArray[np.float64]:
    """`[m,side]`: one axis of a centred kernel of ours to one of a kernel in the FKP convention."""
    offsets, weights = shrinking_taps(scale)
    offsets = offsets - lag(scale)
    reach = side // 2 + int(np.abs(offsets).max())
    matrix = np.zeros((2 * reach + 1, side))
    columns = np.arange(side)
    for offset, weight in zip(offsets, weights, strict=True):
        matrix[reach + offset + columns - side // 2, columns] = weight
    matrix.setflags(write=False)
    return matrix


def _moving(shift: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """`[*S,size,size]` that moves `size` samples by `shift` `[*S]` pixels along a cubic spline.

    Where they came from, zeros follow.
    """
    places = np.arange(size) - shift[..., None]
    weights = _spline(places[..., None] - np.arange(-1, size + 1))
    weights[(places < 0) | (places > size - 1)] = 0
    # The samples are mirrored at both ends, which are not repeated.
    weights[..., 2] += weights[..., 0]
    weights[..., -3] += weights[..., -1]
    return weights[..., 1:-1] @ _spline_coefficients(size)


def _spline(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic B-spline at distances x."""
    x = np.abs(x)
    near = 2 / 3 - x**2 + x**3 / 2
    far = (2 - x) ** 3 / 6
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache
def _spline_coefficients(size: int) -> NDArray[np.float64]:
    """`[size,size]`: samples to the coefficients of the spline through them."""
    samples = 2 / 3 * np.eye(size)
    samples += (np.eye(size, k=1) + np.eye(size, k=-1)) / 6
    samples[0, 1] = samples[-1, -2] = 1 / 3
    return np.asarray(np.linalg.inv(samples), np.float64)
