"""The options that give a picture's blur kernel."""

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
"""What a kernel in a file means (see `ikc_deploy.kernels.conventions`)."""


@dataclass(frozen=True, eq=False)
class KernelOptions:
    """A kernel that was given, and what else is known."""

    kernel: NDArray[np.float64]
    """`[k,k]`, sum 1."""
    convention: Convention
    noise: float
    border: Border

    def nonblind_upscale(
        self, network: NonBlind
    ) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
        """Restores images under it. Raises `KernelError` if it is too large for the network."""
        kernel = self.kernel
        if self.convention == "ikc":
            kernel = fkp_in_place(kernel, network.scale)
        fitted = fitted_kernel(kernel, network.bundle.usrnet.kernel_size)
        return lambda rgb: network(rgb, fitted, self.noise, self.border)


def kernel_options(command: _Command) -> _Command:
    """Decorator: `--kernel` and what belongs to it, as one parameter `known`, None without it.

    Inside `reports_errors`.
    """

    @click.option(
        "--kernel",
        type=click.Path(path_type=Path),
        help="The blur kernel [k,k], sum 1, in an .npy file, as ikc-offline writes it; for bundles "
        "with the graph that ikc-export --usrnet adds.",
    )
    @click.option(
        "--kernel-convention",
        "convention",
        type=click.Choice(["fkp", "ikc"]),
        help="What the kernel in --kernel does: all of the shrinking (fkp), or a centred blur "
        "before bicubic shrinking (ikc).  [default: fkp]",
    )
    @click.option(
        "--noise",
        type=float,
        help="With --kernel, the standard deviation of the noise in 8-bit levels.  "
        "[default: 0.29, as rounding leaves]",
    )
    @click.option(
        "--border",
        type=click.Choice(["reflect", "wrap"]),
        help="With --kernel, what lies beyond the edges: a mirror image, or the opposite edge, as "
        "in test images that were blurred so.  [default: reflect]",
    )
    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        file = kwargs.pop("kernel")
        rest = {name: kwargs.pop(name) for name in ("convention", "noise", "border")}
        if file is None and any(value is not None for value in rest.values()):
            raise InputError("--kernel-convention, --noise and --border belong to --kernel")
        known = file and KernelOptions(
            read_kernel(file),
            rest["convention"] or "fkp",
            ROUNDING_NOISE if rest["noise"] is None else rest["noise"],
            rest["border"] or "reflect",
        )
        return command(*args, **kwargs, known=known)

    return cast("_Command", gathered)
