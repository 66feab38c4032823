"""Options that give the blur kernel of the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import click
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import read_kernel
from ikc_deploy.runtime.nonblind import (
    ROUNDING_NOISE,
    Border,
    NonBlind,
    fitted_kernel,
    fkp_in_place,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])

Convention = Literal["fkp", "ikc"]
"""Convention of a kernel in a file (see `ikc_deploy.kernels.conventions`)."""


@dataclass(frozen=True, eq=False)
class KernelOptions:
    """A given blur kernel, and what else is known about the degradation."""

    kernel: NDArray[np.float64]
    """Blur kernel `[k,k]`, sum 1."""
    convention: Convention
    noise: float
    """Standard deviation of the noise in 8-bit levels."""
    border: Border
    """Content beyond the image's edges."""

    def nonblind_upscale(
        self, network: NonBlind
    ) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
        """Return a function that upscales RGB images `[H,W,3]` uint8 under the kernel.

        Raises `KernelError` if the kernel is too large for the network.
        """
        kernel = self.kernel
        if self.convention == "ikc":
            kernel = fkp_in_place(kernel, network.scale)
        fitted = fitted_kernel(kernel, network.bundle.usrnet.kernel_size)
        return lambda rgb: network(rgb, fitted, self.noise, self.border)


def kernel_options(command: _Command) -> _Command:
    """Add `--kernel` and its companions to a command, as one parameter `known`.

    `known` is a `KernelOptions`, or None without `--kernel`. Apply it inside `reports_errors`.
    """

    @click.option(
        "--kernel",
        type=click.Path(path_type=Path),
        help="Known blur kernel [k,k], sum 1, in an .npy file, as ikc-offline writes it; requires "
        "a bundle with the graph that ikc-export --usrnet adds.",
    )
    @click.option(
        "--kernel-convention",
        "convention",
        type=click.Choice(["fkp", "ikc"]),
        help="Convention of --kernel: it includes the shrinking filter (fkp), or is a centred blur "
        "before bicubic shrinking (ikc).  [default: fkp]",
    )
    @click.option(
        "--noise",
        type=float,
        help="With --kernel, the standard deviation of the noise in 8-bit levels.  "
        "[default: 0.29, that of rounding]",
    )
    @click.option(
        "--border",
        type=click.Choice(["reflect", "wrap"]),
        help="With --kernel, the content beyond the edges: the mirror image, or the opposite edge "
        "(for test images with a cyclic blur).  [default: reflect]",
    )
    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        file = kwargs.pop("kernel")
        rest = {name: kwargs.pop(name) for name in ("convention", "noise", "border")}
        if file is None and any(value is not None for value in rest.values()):
            raise InputError(
                "--kernel-convention, --noise and --border belong to --kernel; give it too"
            )
        known = file and KernelOptions(
            read_kernel(file),
            rest["convention"] or "fkp",
            ROUNDING_NOISE if rest["noise"] is None else rest["noise"],
            rest["border"] or "reflect",
        )
        return command(*args, **kwargs, known=known)

    return cast("_Command", gathered)
