"""`KernelBasis`: the linear map between blur kernels and the codes that the networks exchange.

A *kernel* k is a square blur kernel with sum 1. Its *kernel code* h has few components (ten for
isotropic Gaussians): h = M^T k, where the orthonormal basis M is fitted by principal component
analysis to the kernels of a sigma range (IKC, CVPR 2019, section 3.2). Like the reference
implementation, we do not subtract the mean before the projection. A `KernelBasis` consists of M,
the mean kernel, and the range. It is stored in every checkpoint and bundle, because networks are
valid only with the basis they were trained with.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.arguments import is_whole, path_argument, real_array
from ikc_deploy.errors import KernelError
from ikc_deploy.kernels.basis_file import MAX_FILE, read_arrays
from ikc_deploy.kernels.gaussians import (
    FIT_SAMPLES,
    KERNEL_SIZE,
    Family,
    family_kernels,
    gaussian_kernel,
)
from ikc_deploy.kernels.principal_components import principal_components
from ikc_deploy.text import shown

CODE_SIZE: Final = 10
"""Number of components of a kernel code (IKC, section 4.1)."""

LEVELS: Final = ("noise", "jpeg")
"""Names of the degradation levels, the trailing components of a code: noise and JPEG compression of
the LR image. Each is 0 for a clean image and 1 at `LEVEL_UNITS`."""

LEVEL_UNITS: Final = (25.0, 50.0)
"""Noise sigma in 8-bit levels, and 100 minus the JPEG quality, at level 1."""

_TIE: Final = 0.999
"""Entries of at least this share of a component's largest entry count as equal to it."""

_CURVE_SAMPLES: Final = 2048
_MIRRORED: Final = 0.01
"""Difference between a component and its mirror image that is more than rounding."""


@dataclass(frozen=True, eq=False)
class KernelBasis:
    """An affine map between kernels `[size, size]` and kernel codes `[code_size]`.

    Encoding computes h = M^T k (IKC, section 3.2). Decoding adds the part of the mean kernel that
    the projection drops: k = M h + (I - M M^T) kbar. Bases are equal if their `id` is equal.

    Raises:
        KernelError: Shapes do not match, a value is not finite, the columns are not orthonormal, or
            the sigma range is empty.

    Example:
        >>> from ikc_deploy import KernelBasis, gaussian_kernel
        >>> basis = KernelBasis.fit((0.2, 4.0))
        >>> code = basis.encode(gaussian_kernel(1.5))
        >>> code.shape, round(float(basis.sigma_of_code(code)), 2)
        ((10,), 1.5)
    """

    components: NDArray[np.float32]
    """Matrix M `[size * size, code_size]`: orthonormal columns, followed by one column of zeros per
    level, so that levels are independent of the kernel."""
    mean: NDArray[np.float32]
    """Mean kernel kbar `[size * size]` over the sigma range, sum 1."""
    sigma_range: tuple[float, float]
    """Minimum and maximum sigma that the basis was fitted to, in HR pixels."""

    def __post_init__(self) -> None:
        """Require finite orthonormal columns for a square of odd side, and ranges that fit."""
        pixels, code_size = self.components.shape if self.components.ndim == 2 else (0, 0)
        side = round(pixels**0.5)
        if pixels == 0 or side * side != pixels or side % 2 == 0:
            raise KernelError(
                "a basis needs components of shape [odd * odd, code_size], "
                f"got {list(self.components.shape)}"
            )
        if self.mean.shape != (pixels,):
            raise KernelError(
                f"a basis of {pixels} pixels needs a mean of shape [{pixels}], "
                f"got {list(self.mean.shape)}"
            )
        if code_size < 1 or not (
            np.isfinite(self.components).all() and np.isfinite(self.mean).all()
        ):
            raise KernelError("a basis needs at least one component, and values that are finite")
        live = self.components.any(axis=0)
        gram = self.components.T.astype(np.float64) @ self.components.astype(np.float64)
        if not live.any() or not np.allclose(gram, np.diag(live), atol=1e-4):
            raise KernelError("the columns of a basis must be orthonormal; these are not")
        low, high = self.sigma_range
        if not 0 < low < high < math.inf:
            raise KernelError(f"a sigma range needs 0 < low < high, got {self.sigma_range}")

    @classmethod
    def fit(
        cls,
        sigma_range: tuple[float, float],
        code_size: int = CODE_SIZE,
        size: int = KERNEL_SIZE,
        family: Family = "isotropic",
    ) -> KernelBasis:
        """Fit a basis to a family of Gaussians with sigmas uniform in `sigma_range`.

        The components are the principal directions of the family. The result is deterministic:
        sigmas are on a grid, and the largest entry of each component is made positive, because the
        signs of a singular value decomposition are arbitrary, and a flipped sign silently breaks
        networks that were trained with the other one. Among entries that are equal by symmetry, the
        first one determines the sign.

        Args:
            sigma_range: Minimum and maximum sigma in HR pixels.
            code_size: Number of components of a code.
            size: Side of the kernels in pixels, odd.
            family: Isotropic or anisotropic Gaussians.

        Returns:
            The basis, without levels.

        Raises:
            KernelError: The range, the size or the code size is invalid.
        """
        kernels = family_kernels(family, sigma_range, size)
        if not is_whole(code_size, 1) or code_size > size * size:
            raise KernelError(
                f"code_size must be a whole number from 1 to {size * size}, got {shown(code_size)}"
            )
        mean = kernels.mean(axis=0).ravel()
        _, directions = principal_components(kernels)
        components = directions[:, :code_size]
        sizes = np.abs(components)
        first = (sizes >= _TIE * sizes.max(axis=0)).argmax(axis=0)
        peaks = components[first, np.arange(code_size)]
        # Use one memory layout, before and after saving: the rounding of products depends on it.
        rounded = np.ascontiguousarray((components * np.sign(peaks)).astype(np.float32))
        return cls(rounded, mean.astype(np.float32), sigma_range)

    @classmethod
    def from_components(
        cls, components: NDArray[np.floating], sigma_range: tuple[float, float]
    ) -> KernelBasis:
        """Return a basis with a given matrix M, for example that of a published checkpoint.

        The mean kernel is computed from `sigma_range`, because such checkpoints do not store it.

        Args:
            components: M `[size * size, code_size]` with orthonormal columns.
            sigma_range: Minimum and maximum sigma in HR pixels.

        Returns:
            The basis; it shares memory with `components` if these are contiguous float32.

        Raises:
            KernelError: The shape of `components` is wrong, they are not orthonormal, or the range
                is invalid.
        """
        side = round(len(components) ** 0.5)
        kernels = gaussian_kernel(np.linspace(*sigma_range, FIT_SAMPLES), side)
        mean = kernels.reshape(FIT_SAMPLES, -1).mean(axis=0)
        return cls(
            np.ascontiguousarray(components, dtype=np.float32),
            mean.astype(np.float32),
            sigma_range,
        )

    @property
    def code_size(self) -> int:
        """Number of components of a code, levels included."""
        return int(self.components.shape[1])

    @cached_property
    def levels(self) -> int:
        """Number of degradation levels, the trailing components of a code (see `LEVELS`)."""
        used = np.flatnonzero(np.any(self.components != 0, axis=0))
        return self.code_size - (int(used[-1]) + 1 if used.size else 0)

    def with_levels(self, levels: int) -> KernelBasis:
        """Return this basis with another number of degradation levels.

        Args:
            levels: Number of levels.

        Returns:
            A basis for the same kernels.
        """
        zeros = np.zeros((len(self.components), levels), dtype=np.float32)
        kernel = self.components[:, : self.code_size - self.levels]
        components = np.concatenate((kernel, zeros), axis=1)
        return KernelBasis(components, self.mean, self.sigma_range)

    @property
    def elliptic(self) -> bool:
        """Whether codes can represent a direction: not every component is symmetric."""
        side = self.kernel_size
        shaped = self.components.reshape(side, side, -1)
        return bool(np.abs(shaped - shaped[:, ::-1]).max() > _MIRRORED)

    @property
    def kernel_size(self) -> int:
        """Side of a kernel in pixels."""
        return round(self.components.shape[0] ** 0.5)

    @cached_property
    def id(self) -> str:
        """Hash of the basis: sha256 (hex) of M and kbar (float32) and the range (float64)."""
        digest = hashlib.sha256()
        digest.update(np.ascontiguousarray(self.components, dtype="<f4").tobytes())
        digest.update(np.ascontiguousarray(self.mean, dtype="<f4").tobytes())
        digest.update(np.asarray(self.sigma_range, dtype="<f8").tobytes())
        return digest.hexdigest()

    def encode(self, kernel: ArrayLike) -> NDArray[np.float32]:
        """Return the codes of kernels.

        Args:
            kernel: `[..., size, size]`, each with sum 1.

        Returns:
            float32 `[..., code_size]`, levels 0.

        Raises:
            KernelError: The array has the wrong shape, or is not numeric.
        """
        kernels = real_array(kernel, "a kernel", KernelError, finite=False)
        side = self.kernel_size
        if kernels.shape[-2:] != (side, side):
            raise KernelError(
                f"this basis encodes kernels of shape [..., {side}, {side}], "
                f"got {list(kernels.shape)}"
            )
        flat = kernels.reshape(*kernels.shape[:-2], side * side)
        return (flat @ self.components.astype(np.float64)).astype(np.float32)

    def delta_code(self) -> NDArray[np.float32]:
        """Return the code `[code_size]` of the delta kernel (no blur), with levels 0."""
        return self.components[len(self.components) // 2].astype(np.float32)

    def decode(self, code: ArrayLike) -> NDArray[np.float32]:
        """Return the kernels of codes.

        Args:
            code: `[..., code_size]`; levels are ignored.

        Returns:
            float32 `[..., size, size]`, each with sum about 1.

        Raises:
            KernelError: The array has the wrong shape, or is not numeric.
        """
        codes = self._codes(code)
        kernels = codes @ self.components.astype(np.float64).T + self._dropped_mean
        side = self.kernel_size
        return kernels.reshape(*codes.shape[:-1], side, side).astype(np.float32)

    def code_of_sigma(self, sigma: ArrayLike) -> NDArray[np.float32]:
        """Return the codes of isotropic Gaussians.

        Args:
            sigma: Sigma in HR pixels, any shape `S`, within `sigma_range`.

        Returns:
            float32 `[*S, code_size]`.

        Raises:
            KernelError: A sigma is outside of `sigma_range`, on which the networks were trained.
        """
        low, high = self.sigma_range
        sigmas = real_array(sigma, "sigma", KernelError, finite=False)
        if not np.all((sigmas >= low - 1e-9) & (sigmas <= high + 1e-9)):
            raise KernelError(
                f"sigma must lie in [{low:g}, {high:g}], the range of this basis; "
                f"got {shown(sigma)}"
            )
        return self.encode(gaussian_kernel(sigmas, self.kernel_size))

    def sigma_of_code(self, code: ArrayLike) -> NDArray[np.float64]:
        """Return the sigma of the isotropic Gaussian whose code is nearest to each code.

        The distance is Euclidean. Because M is orthonormal, it is also the distance between the
        kernels within the basis.

        Args:
            code: `[..., code_size]`.

        Returns:
            float64 `[...]` in HR pixels, within `sigma_range`.

        Raises:
            KernelError: The array has the wrong shape, or is not numeric.
        """
        codes = self._codes(code)
        flat = codes.reshape(-1, 1, self.code_size)
        sigmas, points = self._curve
        starts, steps = points[:-1], np.diff(points, axis=0)
        along = ((flat - starts) * steps).sum(-1) / (steps**2).sum(-1)
        along = np.clip(along, 0.0, 1.0)
        distances = ((flat - starts - along[..., None] * steps) ** 2).sum(-1)
        best = distances.argmin(axis=1)
        fraction = along[np.arange(len(flat)), best]
        found = sigmas[best] + fraction * (sigmas[best + 1] - sigmas[best])
        return found.reshape(codes.shape[:-1])

    def take_levels(self, code: ArrayLike, source: ArrayLike) -> NDArray[np.float32]:
        """Return codes with their degradation levels replaced by those of other codes.

        Args:
            code: Codes `[..., code_size]` with the blur.
            source: Codes `[..., code_size]` with the levels.

        Returns:
            New codes `[..., code_size]`.

        Raises:
            KernelError: The codes do not have the size of this basis.
        """
        mixed = self._codes(code).astype(np.float32)
        if self.levels:
            mixed[..., -self.levels :] = self._codes(source)[..., -self.levels :]
        return mixed

    def noise_of_code(self, code: ArrayLike) -> NDArray[np.float64] | None:
        """Return the standard deviation of the noise in the LR image, in 8-bit levels.

        Args:
            code: Codes `[..., code_size]`.

        Returns:
            `[...]`, or None if these codes have no levels.
        """
        if not self.levels:
            return None
        return LEVEL_UNITS[0] * self._codes(code)[..., -len(LEVELS)]

    def jpeg_quality_of_code(self, code: ArrayLike) -> NDArray[np.float64] | None:
        """Return the JPEG quality of the LR image, 100 for no compression.

        Args:
            code: Codes `[..., code_size]`.

        Returns:
            `[...]` from 50 to 100, or None if these codes have no levels.
        """
        if not self.levels:
            return None
        return 100 - LEVEL_UNITS[1] * self._codes(code)[..., -1]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the basis to a file.

        Args:
            path: The .npz file (arrays only, no pickles); an existing one is overwritten.

        Raises:
            KernelError: `path` is not a path.
            OSError: The file cannot be written.
        """
        with open(path_argument(path, "the file of a basis", KernelError), "wb") as file:
            np.savez(
                file,
                components=self.components,
                mean=self.mean,
                sigma_range=np.asarray(self.sigma_range),
            )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> KernelBasis:
        """Read a basis written by `save`.

        Args:
            path: The .npz file.

        Returns:
            The basis.

        Raises:
            KernelError: The file is missing, unreadable or not a kernel basis.
        """
        try:
            with open(path_argument(path, "the file of a basis", KernelError), "rb") as file:
                data = file.read(MAX_FILE + 1)
        except FileNotFoundError as error:
            raise KernelError(f"there is no basis file at '{path}'") from error
        except OSError as error:
            raise KernelError(f"'{path}' cannot be read: {error.strerror}") from error
        return cls.from_bytes(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> KernelBasis:
        """Read a basis from the content of a file written by `save`.

        Arrays are decompressed only after their headers show that they are small; pickles are never
        loaded.

        Args:
            data: The content.
            source: Name of the file, for messages.

        Returns:
            The basis.

        Raises:
            KernelError: The content is not a kernel basis.
        """
        try:
            components, mean, sigma_range = read_arrays(data)
            low, high = (float(value) for value in sigma_range)
            return cls(components.astype(np.float32), mean.astype(np.float32), (low, high))
        except KernelError as error:
            raise KernelError(f"'{source}' is not a kernel basis: {error}") from error
        except Exception as error:  # zipfile and numpy raise a dozen types for damaged archives
            raise KernelError(
                f"'{source}' is not a kernel basis written by this project"
            ) from error

    def _codes(self, code: ArrayLike) -> NDArray[np.float64]:
        codes = real_array(code, "a code", KernelError, finite=False)
        if codes.ndim == 0 or codes.shape[-1] != self.code_size:
            raise KernelError(
                f"this basis has codes of shape [..., {self.code_size}], got {list(codes.shape)}"
            )
        return codes

    @cached_property
    def _dropped_mean(self) -> NDArray[np.float64]:
        basis = self.components.astype(np.float64)
        mean = self.mean.astype(np.float64)
        return mean - basis @ (basis.T @ mean)

    @cached_property
    def _curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        sigmas = np.linspace(*self.sigma_range, _CURVE_SAMPLES)
        kernels = gaussian_kernel(sigmas, self.kernel_size).reshape(_CURVE_SAMPLES, -1)
        return sigmas, kernels @ self.components.astype(np.float64)
