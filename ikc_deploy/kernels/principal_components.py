"""Principal components of families of blur kernels: what a kernel code of some size keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.kernels.gaussians import KERNEL_SIZE, Family, family_kernels


def explained_variance(
    family: Family, sigma_range: tuple[float, float], size: int = KERNEL_SIZE
) -> NDArray[np.float64]:
    """Return the share of a family's variance that the first 1, 2, ... components hold.

    It serves to choose a code size: ten components hold more than 0.9999 of the isotropic families.

    Args:
        family: Which Gaussians.
        sigma_range: Smallest and largest sigma in HR pixels.
        size: Side of the kernels in pixels, odd.

    Returns:
        float64 `[size * size]`, rising to 1.
    """
    values, _ = principal_components(family_kernels(family, sigma_range, size))
    return np.cumsum(values) / values.sum()


def principal_components(
    kernels: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the principal components of kernels `[N, size, size]` of P = size^2 pixels.

    These are variances `[P]` in falling order and directions `[P, P]` in columns.
    """
    flat = kernels.reshape(len(kernels), -1)
    centred = flat - flat.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(values)[::-1]
    return np.maximum(values[order], 0.0), vectors[:, order]
