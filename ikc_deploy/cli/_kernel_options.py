"""Options for a known blur kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.cli._option_group import given_options
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import read_kernel
from ikc_deploy.option_fields import Option, check_options
from ikc_deploy.runtime.frame_margin import Border
from ikc_deploy.runtime.nonblind import (
    MAX_NOISE,
    ROUNDING_NOISE,
    NonBlind,
    fitted_kernel,
    fkp_in_place,
)

Convention = Literal["fkp", "ikc"]
"""Convention of a kernel in a file (see `ikc_deploy.kernels.conventions`)."""


@dataclass(frozen=True)
class KernelOptions:
    """A known blur kernel, and other known properties of the degradation.

    Raises:
        InputError: A value is out of range.
    """

    kernel: Annotated[
        Path | None,
        Option(
            "Known blur kernel [k,k], sum 1, in an .npy file, as ikc-offline writes it; requires a "
            "bundle with the graph that ikc-export --usrnet adds.",
            heading="Blur",
        ),
    ] = None
    kernel_convention: Annotated[
        Convention,
        Option(
            "Convention of --kernel: with the downscaling filter included (fkp), or a centred blur "
            "before bicubic downscaling (ikc).",
            heading="Blur",
        ),
    ] = "fkp"
    noise: Annotated[
        float,
        Option(
            "With --kernel, the standard deviation of the noise in 8-bit levels.",
            default=f"{ROUNDING_NOISE:.2f}, that of rounding",
            minimum=0,
            maximum=MAX_NOISE,
            heading="Blur",
        ),
    ] = ROUNDING_NOISE
    border: Annotated[
        Border,
        Option(
            "With --kernel, the content beyond the edges: the mirror image, or the opposite edge "
            "(for test images with a cyclic blur).",
            heading="Blur",
        ),
    ] = "reflect"

    def __post_init__(self) -> None:
        check_options(self)

    def read(self) -> KnownBlur | None:
        """Return the known blur of the current command line; None without `--kernel`.

        Raises `InputError` if options of `--kernel` are given without it, and what `read_kernel`
        raises.
        """
        if self.kernel is not None:
            return KnownBlur(read_kernel(self.kernel), self)
        others = given_options(KernelOptions)
        if others:
            raise InputError(f"{', '.join(others)} belong to --kernel; give it too")
        return None


@dataclass(frozen=True, eq=False)
class KnownBlur:
    """A blur kernel `[k,k]`, sum 1, and other known properties of the degradation."""

    kernel: NDArray[np.float64]
    """The kernel, in the convention of the options."""
    options: KernelOptions
    """Convention, noise and border."""

    def nonblind_upscale(
        self, network: NonBlind
    ) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
        """Return a function that upscales RGB images `[H,W,3]` uint8 with the kernel.

        Raises `KernelError` if the kernel is too large for the network.
        """
        kernel = self.kernel
        if self.options.kernel_convention == "ikc":
            kernel = fkp_in_place(kernel, network.scale)
        fitted = fitted_kernel(kernel, network.bundle.usrnet.kernel_size)
        return lambda rgb: network(rgb, fitted, self.options.noise, self.options.border)
