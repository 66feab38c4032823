"""The blurs that a bundle is measured under: Gaussians by sigma, kernels from a file or drawn at
random, and filters that no kernel stands for."""

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
"""Long axis over short axis of the ellipses of Ellipses8."""

DRAWN: Final = 8
"""Kernels of a degradation that is drawn at random: as many as Gaussian8 has."""

RandomName = Literal["random", "gaussian-aniso"]
DegradationName = Literal[FilterName, RandomName]
"""What `ikc-eval --degradation` knows: filters without a kernel, and families of kernels."""

DEGRADATIONS: Final[tuple[DegradationName, ...]] = get_args(DegradationName)

_ARRAY: Final = "kernels"
# A quarter of an 8-bit level on white: less than rounding does.
_SUM_TOLERANCE: Final = 1e-3
# Of the peak; float32 kernels differ from the formula by less than a hundredth of it.
_GAUSSIAN_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, eq=False)
class Blur:
    """One blur kernel under a name."""

    name: str
    """As tables show it: "sigma 2.6", or "kernel 3" for the fourth of a file."""
    kernel: NDArray[np.float64]
    """`[k,k]`, k odd, sum 1."""
    sigma: float | None
    """In HR pixels; None for a kernel that is no isotropic Gaussian."""

    def apply(self, hr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """An HR image `[H,W,3]` blurred, 0..255."""
        return blur(hr, self.kernel)

    def padded(self, size: int) -> NDArray[np.float64] | None:
        """The kernel with zeros around it, `[size,size]`; None if it is larger than that."""
        margin = (size - len(self.kernel)) // 2
        return None if margin < 0 else np.pad(self.kernel, margin)


@dataclass(frozen=True)
class Filter:
    """What blurs without a kernel, so that there is none to compare with: a `Blur` but for that."""

    name: FilterName
    scale: int
    sigma: None = None

    def apply(self, hr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """An HR image `[H,W,3]` filtered, 0..255; raises `MissingExtraError` without scipy."""
        return FILTERS[self.name](hr, self.scale)

    def padded(self, size: int) -> NDArray[np.float64] | None:  # noqa: ARG002 - as Blur.padded
        """None: there is no kernel."""
        return None


@dataclass(frozen=True, eq=False)
class BlurSet:
    """The blurs of one measurement, each applied to every image."""

    kind: Literal["gaussian8", "ellipses8", "gaussians", "kernels", DegradationName]
    blurs: tuple[Blur | Filter, ...]
    file: str | None = None
    """Name of the file that the kernels came from."""
    sha256: str | None = None
    """Of that file."""

    def __post_init__(self) -> None:
        if not self.blurs:
            raise InputError("there is nothing to measure without a blur; give at least one sigma")
        names = [blur.name for blur in self.blurs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{twice} is given twice; leave one out, or its rows count double")

    @classmethod
    def gaussian8(cls, scale: int) -> BlurSet:
        """The eight Gaussians of the Gaussian8 protocol at `scale` 2, 3 or 4."""
        return cls("gaussian8", _gaussians(SIGMAS[scale]))

    @classmethod
    def ellipses8(cls, scale: int) -> BlurSet:
        """The Gaussians of Gaussian8 stretched 3:2 with their area kept, each 22.5 degrees on.

        A protocol of this project's, for weights of the anisotropic family.
        """
        stretch = math.sqrt(ELLIPSES8_RATIO)
        blurs = []
        for index, sigma in enumerate(SIGMAS[scale]):
            kernel = anisotropic_kernel(stretch * sigma, sigma / stretch, index * math.pi / 8)
            blurs.append(Blur(f"ellipse {sigma:g} at {22.5 * index:g}°", kernel, None))
        return cls("ellipses8", tuple(blurs))

    @classmethod
    def gaussians(cls, sigmas: Sequence[float]) -> BlurSet:
        """Isotropic Gaussians, 21x21, sigmas in HR pixels.

        Raises `KernelError` for a sigma that is not positive and finite, `InputError` for none at
        all or the same one twice.
        """
        return cls("gaussians", _gaussians(sigmas))

    @classmethod
    def degradation(cls, name: DegradationName, scale: int, seed: int = 0) -> BlurSet:
        """The filter of this name; or `DRAWN` kernels of a family, which `seed` draws.

        "gaussian-aniso" are centred anisotropic Gaussians, whose variances (HR pixels squared) are
        uniform in [0.175 s, min(2.5 s, 10)] and their directions in [0, pi): FKP's. "random" are
        kernels of no family, whose (2 s + 1)^2 weights are uniform in [0, 1] before they are
        divided by their sum.
        """
        if name == "gaussian-aniso":
            return cls(name, _drawn(name, _elliptic, scale, seed))
        if name == "random":
            return cls(name, _drawn(name, _shapeless, scale, seed))
        return cls(name, (Filter(name, scale),))

    @classmethod
    def read(cls, path: Path) -> BlurSet:
        """The kernels `[N,k,k]` of an .npy file, or of an .npz file's array (`kernels` of several).

        Real numbers, k odd, each kernel's sum 1; correlated with the image as they are. One that
        is an isotropic Gaussian has a sigma. Raises `InputError` for a file that is missing, of
        another type or damaged, `KernelError` for arrays that are no such kernels.
        """
        kernels = _check(_read_array(path), path)
        blurs = tuple(
            Blur(f"kernel {index}", kernel, sigma_of_gaussian(kernel))
            for index, kernel in enumerate(kernels)
        )
        return cls("kernels", blurs, path.name, sha256_file(path))

    @property
    def title(self) -> str:
        """For people: "Gaussian8", "Gaussians", "Median", "Kernels of FILE"."""
        return self.kind.capitalize() + (f" of {self.file}" if self.file else "")


def read_kernel(path: Path) -> NDArray[np.float64]:
    """The one kernel of a file: `[k,k]`, or `[1,k,k]`; raises as `BlurSet.read` does."""
    array = _read_array(path)
    kernels = _check(array[None] if array.ndim == 2 else array, path)
    if len(kernels) > 1:
        raise InputError(f"'{path}' holds {len(kernels)} kernels; save the one that you mean")
    return kernels[0]


def sigma_of_gaussian(kernel: NDArray[np.float64]) -> float | None:
    """The sigma of which a kernel `[k,k]` is the isotropic Gaussian; None if it is of no sigma."""
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
            f"'{path}' is no {' or '.join(KERNEL_SUFFIXES)} file; "
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
        f"name the one with the kernels '{_ARRAY}', or leave it alone in the file"
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
