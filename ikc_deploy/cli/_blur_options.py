"""The options that say how a picture was blurred, or how to find out."""

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
    """The options as given; None means not given."""

    sigma: float | None
    estimate: Estimate | None

    def __post_init__(self) -> None:
        if self.sigma is not None and self.estimate is not None:
            raise InputError("give --sigma, or --estimate to have it estimated, not both")


def blur_options(command: _Command) -> _Command:
    """Decorator: `--sigma` and `--estimate`, as one parameter `blur`; inside `reports_errors`."""

    @click.option(
        "--sigma",
        type=float,
        help="The blur, in pixels of the output; it is then not estimated, and nothing is "
        "corrected.",
    )
    @click.option(
        "--estimate",
        type=click.Choice(ESTIMATES),
        help="How the blur is found: by the loop on the whole frame, on a few textured crops, or "
        "from the frame before.  [default: full; for video, track]",
    )
    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        blur = BlurOptions(kwargs.pop("sigma"), kwargs.pop("estimate"))
        return command(*args, **kwargs, blur=blur)

    return cast("_Command", gathered)
