"""The blurs of an evaluation: Gaussians, kernels from a file or random ones, and other filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.evaluation.filters import FILTERS, FilterName
from ikc_deploy.files import sha256_file
from ikc_deploy.imaging.degrade import SIGMAS, blur
from ikc_deploy.kernels import anisotropic_kernel, gaussian_kernel

KERNEL_SUFFIXES: Final = (".npy", ".npz")

ELLIPSES8_RATIO: Final = 1.5
"""Ratio of the long axis to the short axis of the ellipses of Ellipses8."""

DRAWN: Final = 8
"""Number of blur kernels of a degradation that is drawn at random: as many as Gaussian8 has."""

RandomName = Literal["random", "gaussian-aniso"]
DegradationName = Literal[FilterName, RandomName]
"""Values of `ikc-eval --degradation`: filters without a blur kernel, and families of kernels."""

DEGRADATIONS: Final[tuple[DegradationName, ...]] = get_args(DegradationName)

_ARRAY: Final = "kernels"
# A quarter of an 8-bit level on white: less than the rounding error.
_SUM_TOLERANCE: Final = 1e-3
# Relative to the peak; float32 kernels differ from the formula by less than a hundredth of this.
_GAUSSIAN_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, eq=False)
class Blur:
    """A blur kernel with a name."""

    name: str
    """Name in tables: "sigma 2.6", or "kernel 3" for the fourth kernel of a file."""
    kernel: NDArray[np.float64]
    """Blur kernel `[k,k]`, k odd, sum 1."""
    sigma: float | None
    """Standard deviation in HR pixels; None for a kernel that is not an isotropic Gaussian."""

    def apply(self, hr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Blur an HR image.

        Args:
            hr: RGB `[H,W,3]` uint8.

        Returns:
            The blurred image, `[H,W,3]` in 0..255, not rounded.
        """
        return blur(hr, self.kernel)

    def padded(self, size: int) -> NDArray[np.float64] | None:
        """Return the kernel padded with zeros to `[size,size]`; None if it is larger than that."""
        margin = (size - len(self.kernel)) // 2
        return None if margin < 0 else np.pad(self.kernel, margin)


@dataclass(frozen=True)
class Filter:
    """A filter that is not a convolution; has the interface of `Blur`."""

    name: FilterName
    """Name of the filter in `FILTERS`."""
    scale: int
    """Scale factor, which determines the strength of the filter."""
    sigma: None = None
    """Always None: a filter has no sigma."""

    def apply(self, hr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Filter an HR image.

        Args:
            hr: RGB `[H,W,3]` uint8.

        Returns:
            The filtered image, `[H,W,3]` in 0..255, not rounded.

        Raises:
            MissingExtraError: scipy is not installed (the median needs it).
        """
        return FILTERS[self.name](hr, self.scale)

    def padded(self, size: int) -> NDArray[np.float64] | None:  # noqa: ARG002 - as Blur.padded
        """Return None: a filter has no kernel."""
        return None


@dataclass(frozen=True)
class UnknownBlur:
    """The blur of real LR images."""

    name: Literal["unknown"] = "unknown"
    """Name in tables."""
    sigma: None = None
    """Always None: it is not known."""

    def apply(self, hr: NDArray[np.uint8]) -> NDArray[np.float64]:  # noqa: ARG002 - as Blur.apply
        """Raise `InputError`, because the blur is unknown."""
        raise InputError("the blur of real LR images is not known; use evaluation.pairs")

    def padded(self, size: int) -> NDArray[np.float64] | None:  # noqa: ARG002 - as Blur.padded
        """Return None: the kernel is not known."""
        return None


@dataclass(frozen=True, eq=False)
class BlurSet:
    """A set of blurs for one measurement, each applied to every image.

    Raises:
        InputError: There is no blur, or two blurs have the same name.
    """

    kind: Literal["gaussian8", "ellipses8", "gaussians", "kernels", "pairs", DegradationName]
    """Kind of the set, as in JSON reports."""
    blurs: tuple[Blur | Filter | UnknownBlur, ...]
    """Blurs in the order of the tables."""
    file: str | None = None
    """Name of the file that the kernels were read from."""
    sha256: str | None = None
    """SHA-256 (hex) of that file."""

    def __post_init__(self) -> None:
        """Require at least one blur, and each blur once."""
        if not self.blurs:
            raise InputError("no blur to measure; give at least one sigma")
        names = [blur.name for blur in self.blurs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{twice} is given twice and would count double; leave one out")

    @classmethod
    def gaussian8(cls, scale: int) -> BlurSet:
        """Return the eight isotropic Gaussians of the Gaussian8 protocol at `scale` 2, 3 or 4."""
        return cls("gaussian8", _gaussians(SIGMAS[scale]))

    @classmethod
    def unknown(cls) -> BlurSet:
        """Return the blur of real LR/HR pairs, which is not known."""
        return cls("pairs", (UnknownBlur(),))

    @classmethod
    def ellipses8(cls, scale: int) -> BlurSet:
        """Return the Gaussians of Gaussian8 stretched 3:2, each rotated by 22.5 degrees more.

        Stretching keeps their area. This protocol belongs to this project; it measures weights
        of the anisotropic family.
        """
        stretch = math.sqrt(ELLIPSES8_RATIO)
        blurs = []
        for index, sigma in enumerate(SIGMAS[scale]):
            kernel = anisotropic_kernel(stretch * sigma, sigma / stretch, index * math.pi / 8)
            blurs.append(Blur(f"ellipse {sigma:g} at {22.5 * index:g}°", kernel, None))
        return cls("ellipses8", tuple(blurs))

    @classmethod
    def gaussians(cls, sigmas: Sequence[float]) -> BlurSet:
        """Return isotropic Gaussian kernels, 21x21.

        Args:
            sigmas: Standard deviations in HR pixels.

        Raises:
            KernelError: A sigma is not positive and finite.
            InputError: There is no sigma, or the same one twice.
        """
        return cls("gaussians", _gaussians(sigmas))

    @classmethod
    def degradation(cls, name: DegradationName, scale: int, seed: int = 0) -> BlurSet:
        """Return the filter called `name`, or `DRAWN` random kernels of the family called `name`.

        "gaussian-aniso" are centred anisotropic Gaussians, whose variances (HR pixels squared) are
        uniform in [0.175 s, min(2.5 s, 10)] and whose directions are uniform in [0, pi), as in FKP
        (CVPR 2021). "random" are kernels of no family: their (2 s + 1)^2 weights are uniform in
        [0, 1], then divided by their sum.

        Args:
            name: Filter or family of kernels.
            scale: Scale factor s: 2, 3 or 4.
            seed: Seed of the random kernels; filters ignore it.
        """
        if name == "gaussian-aniso":
            return cls(name, _drawn(name, _elliptic, scale, seed))
        if name == "random":
            return cls(name, _drawn(name, _shapeless, scale, seed))
        return cls(name, (Filter(name, scale),))

    @classmethod
    def read(cls, path: Path) -> BlurSet:
        """Read blur kernels from a file.

        Images are correlated with the kernels, which are not flipped. A kernel that is an
        isotropic Gaussian gets its sigma.

        Args:
            path: An .npy file, or an .npz file with one array or an array named `kernels`: real
                numbers `[N,k,k]`, k odd, each kernel with sum 1.

        Raises:
            InputError: The file is missing, damaged or of another type.
            KernelError: The array does not hold such kernels.
        """
        kernels = _check(_read_array(path), path)
        blurs = tuple(
            Blur(f"kernel {index}", kernel, sigma_of_gaussian(kernel))
            for index, kernel in enumerate(kernels)
        )
        return cls("kernels", blurs, path.name, sha256_file(path))

    @property
    def title(self) -> str:
        """Title for people: "Gaussian8", "Gaussians", "Median", "Kernels of FILE"."""
        return self.kind.capitalize() + (f" of {self.file}" if self.file else "")


def read_kernel(path: Path) -> NDArray[np.float64]:
    """Return the only kernel `[k,k]` of a file that holds `[k,k]` or `[1,k,k]`.

    Raises:
        InputError: As `BlurSet.read`, or the file holds several kernels.
        KernelError: As `BlurSet.read`.
    """
    array = _read_array(path)
    kernels = _check(array[None] if array.ndim == 2 else array, path)
    if len(kernels) > 1:
        raise InputError(f"'{path}' holds {len(kernels)} kernels; give a file with one kernel")
    return kernels[0]


def sigma_of_gaussian(kernel: NDArray[np.float64]) -> float | None:
    """Return the sigma of a kernel `[k,k]`; None if it is not an isotropic Gaussian."""
    size = len(kernel)
    middle = size // 2
    if size < 3:
        return None
    # Neighbours on an axis through the peak are exp(-1 / (2 sigma^2)) apart.
    peak, neighbour = kernel[middle, middle], kernel[middle, middle + 1]
    if not 0 < neighbour < peak:
        return None
    sigma = math.sqrt(-0.5 / math.log(neighbour / peak))
    alike = np.allclose(kernel, gaussian_kernel(sigma, size), 0, _GAUSSIAN_TOLERANCE * peak)
    return sigma if alike else None


def _gaussians(sigmas: Sequence[float]) -> tuple[Blur, ...]:
    return tuple(Blur(f"sigma {sigma:g}", gaussian_kernel(sigma), sigma) for sigma in sigmas)


def _drawn(
    name: str,
    draw: Callable[[np.random.Generator, int], NDArray[np.float64]],
    scale: int,
    seed: int,
) -> tuple[Blur, ...]:
    random = np.random.default_rng(seed)
    return tuple(Blur(f"{name} {index}", draw(random, scale), None) for index in range(DRAWN))


def _elliptic(random: np.random.Generator, scale: int) -> NDArray[np.float64]:
    along, across = np.sqrt(random.uniform(0.175 * scale, min(2.5 * scale, 10), 2))
    return anisotropic_kernel(along, across, random.uniform(0, math.pi))


def _shapeless(random: np.random.Generator, scale: int) -> NDArray[np.float64]:
    weights = random.uniform(size=(2 * scale + 1,) * 2)
    return weights / weights.sum()


def _read_array(path: Path) -> NDArray[Any]:
    if path.suffix.lower() not in KERNEL_SUFFIXES:
        raise InputError(
            f"'{path}' is not a {' or '.join(KERNEL_SUFFIXES)} file; "
            "write kernels [N,k,k] with numpy.save"
        )
    try:
        # No pickles: a file from elsewhere must not run code.
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as arrays:
            return np.asarray(arrays[_array_name(arrays.files, path)])
    except FileNotFoundError:
        raise InputError(f"there is no kernels file '{path}'") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # numpy raises half a dozen types for damaged files
        raise InputError(f"'{path}' cannot be read as numpy arrays: {error}") from error


def _array_name(names: Sequence[str], path: Path) -> str:
    if len(names) == 1:
        return names[0]
    if _ARRAY in names:
        return _ARRAY
    raise InputError(
        f"'{path}' holds the arrays {', '.join(names) or '(none)'}; "
        f"name the one with the kernels '{_ARRAY}', or save it alone in the file"
    )


def _check(kernels: NDArray[Any], path: Path) -> NDArray[np.float64]:
    shape = kernels.shape
    if len(shape) != 3 or 0 in shape or shape[1] != shape[2] or shape[1] % 2 == 0:
        raise KernelError(
            f"'{path}' must hold kernels [N,k,k], k odd; it holds an array of shape {list(shape)}"
        )
    if kernels.dtype.kind not in "fiu":
        raise KernelError(f"'{path}' must hold real numbers; it holds {kernels.dtype}")
    kernels = kernels.astype(np.float64)
    sums = kernels.sum(axis=(1, 2))
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= _SUM_TOLERANCE))
    if len(wrong):
        raise KernelError(
            f"kernel {wrong[0]} of '{path}' sums to {sums[wrong[0]]:g}, and a blur must keep the "
            "brightness; divide every kernel by its sum"
        )
    return kernels
