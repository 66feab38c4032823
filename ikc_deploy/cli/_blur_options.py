"""Options that give the blur of the input, or the way to estimate it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import click

from ikc_deploy.errors import InputError
from ikc_deploy.runtime.estimation import ESTIMATES, Estimate

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class BlurOptions:
    """The blur options of a command line; None for those not given.

    Raises `InputError` if both are given.
    """

    sigma: float | None
    estimate: Estimate | None

    def __post_init__(self) -> None:
        if self.sigma is not None and self.estimate is not None:
            raise InputError(
                "--sigma gives the blur and --estimate estimates it; give only one of them"
            )


def blur_options(command: _Command) -> _Command:
    """Add `--sigma` and `--estimate` to a command, as one parameter `blur: BlurOptions`.

    Apply it inside `reports_errors`: it raises `InputError`.
    """

    @click.option(
        "--sigma",
        type=float,
        help="Known blur: standard deviation in pixels of the output. Nothing is estimated or "
        "corrected then.",
    )
    @click.option(
        "--estimate",
        type=click.Choice(ESTIMATES),
        help="Way to estimate the blur: the loop on the whole frame, corrections on a few textured "
        "crops, or tracking from the previous frame.  [default: full; for video, track]",
    )
    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        blur = BlurOptions(kwargs.pop("sigma"), kwargs.pop("estimate"))
        return command(*args, **kwargs, blur=blur)

    return cast("_Command", gathered)
