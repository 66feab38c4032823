"""The blur that a caller requests, and the kernel codes of a known one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ikc_deploy.arguments import real_array
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError, KernelError
from ikc_deploy.kernels.kernel_checks import MAX_LOST, MAX_NEGATIVE, check_kernels, projection_error
from ikc_deploy.runtime.estimation import Estimate, check_estimate
from ikc_deploy.runtime.options import CLIP_ESTIMATE

_CODE_WORDS: Final = "code must be one finite kernel code, or one for each frame; its values"

_LONGEST_CODE: Final = 4.0
"""Maximum Euclidean norm of a given kernel code. Codes of kernels with sum 1 have a norm of at most
1; codes from a network may exceed it."""


@dataclass(frozen=True, eq=False)
class BlurSettings:
    """The blur of frames: known by one of sigma, kernel and code, or estimated.

    Raises:
        InputError: `estimate` is unknown.
    """

    sigma: ArrayLike | None = None
    """Standard deviation in HR pixels, or one per frame."""
    kernel: ArrayLike | None = None
    """Blur kernel `[k,k]`, or one per frame."""
    code: ArrayLike | None = None
    """Kernel code `[code_size]`, or one per frame."""
    estimate: Estimate = CLIP_ESTIMATE
    """Way to estimate a blur that is not known."""

    def __post_init__(self) -> None:
        """Require a known way to estimate."""
        check_estimate(self.estimate)

    @property
    def is_known(self) -> bool:
        """Whether the blur is given, not estimated."""
        return any(each is not None for each in (self.sigma, self.kernel, self.code))


@dataclass(frozen=True, eq=False)
class GivenBlur:
    """The known blur of the frames of a call."""

    codes: NDArray[np.float32]
    """Kernel codes `[N,code_size]`."""
    with_levels: bool
    """Whether the codes include noise and compression; those of a sigma or a kernel do not."""


def given_blur(bundle: Bundle, blur: BlurSettings, count: int) -> GivenBlur | None:
    """Return the kernel codes of a known blur.

    Args:
        bundle: The bundle whose networks read the codes; kernels are at most of its basis's size.
        blur: The blur.
        count: Number of frames.

    Returns:
        The blur of each frame; None if it is not known.

    Raises:
        InputError: More than one of sigma, kernel and code is given, or the number or the length
            of the codes is wrong.
        KernelError: The basis cannot represent the blur.
    """
    given = {"sigma": blur.sigma, "kernel": blur.kernel, "code": blur.code}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        return None
    if len(named) > 1:
        raise InputError(f"got {' and '.join(named)}: specify the blur by only one of them")
    basis = bundle.basis
    if blur.sigma is not None:
        codes = basis.code_of_sigma(blur.sigma)
    elif blur.kernel is not None:
        codes = _code_of_kernel(bundle, blur.kernel)
    else:
        codes = real_array(blur.code, _CODE_WORDS).astype(np.float32)
    wanted = (count, basis.code_size)
    if codes.shape not in (wanted[1:], wanted):
        several = "" if count == 1 else f", or one for each of {count} frames"
        raise InputError(
            f"{named[0]} must specify one blur{several}; got codes of shape {list(codes.shape)}, "
            f"and a kernel code of {bundle.manifest.name} is [{basis.code_size}]"
        )
    longest = float(np.linalg.norm(codes, axis=-1).max())
    if longest > _LONGEST_CODE:
        raise InputError(
            f"invalid kernel code of length {longest:.3g}: codes of blur kernels have lengths "
            "of at most 1; use one from Result.codes or KernelBasis.encode"
        )
    return GivenBlur(np.ascontiguousarray(np.broadcast_to(codes, wanted)), blur.code is not None)


def _code_of_kernel(bundle: Bundle, kernel: ArrayLike) -> NDArray[np.float32]:
    """Return the codes `[code_size]` or `[N,code_size]` of kernels."""
    basis, manifest = bundle.basis, bundle.manifest
    kernels = check_kernels(kernel, MAX_NEGATIVE)
    margin = (basis.kernel_size - kernels.shape[-1]) // 2
    if margin < 0:
        raise KernelError(
            f"{manifest.name} encodes kernels of at most {basis.kernel_size}x{basis.kernel_size} "
            f"HR pixels, got {kernels.shape[-1]}x{kernels.shape[-1]}; crop it and divide by its "
            "sum, or use USRNet (ikc-export --usrnet, then ikc-upscale --kernel or NonBlind)"
        )
    widths = [(0, 0)] * (kernels.ndim - 2) + [(margin, margin)] * 2
    kernels = np.pad(kernels, widths)
    codes = basis.encode(kernels)
    for each in kernels.reshape(-1, *kernels.shape[-2:]):
        lost = projection_error(each, basis, manifest.scale)
        if lost > MAX_LOST:
            raise KernelError(
                f"{manifest.name} cannot represent this kernel: the nearest kernel of its basis is "
                f"{lost:.0%} off, and {MAX_LOST:.0%} is the limit; for kernels of any shape "
                "use USRNet (ikc-export --usrnet, then ikc-upscale --kernel or NonBlind)"
            )
    return codes
