"""Command-line options of a crop and its degradation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from ikc_deploy.evaluation.blurs import DEGRADATIONS
from tools.measuring.degraded_crop import DegradedCrop

_Command = TypeVar("_Command", bound=Callable[..., Any])


def degraded_crop_options(side: int) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the options of a crop and passes them as one argument `case`.

    Place it below `reports_errors`, which reports invalid values.

    Args:
        side: Default side of the crop in HR pixels.
    """

    def decorated(command: _Command) -> _Command:
        @click.option(
            "--image",
            type=click.Path(path_type=Path),
            default="samples/kodim23.png",
            show_default=True,
            help="HR image file.",
        )
        @click.option(
            "--top", type=int, default=120, show_default=True, help="Top row of the crop."
        )
        @click.option("--left", type=int, default=420, show_default=True)
        @click.option("--side", type=int, default=side, show_default=True)
        @click.option(
            "--degradation",
            type=click.Choice(DEGRADATIONS),
            default="median",
            show_default=True,
        )
        @click.option("--scale", type=int, default=2, show_default=True, help="2 or 4.")
        @click.option("--seed", type=int, default=0, show_default=True)
        @wraps(command)
        def gathered(*args: Any, **kwargs: Any) -> Any:
            mine = {field.name: kwargs.pop(field.name) for field in fields(DegradedCrop)}
            return command(*args, **kwargs, case=DegradedCrop(**mine))

        return cast("_Command", gathered)

    return decorated
