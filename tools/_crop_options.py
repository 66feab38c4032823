"""The options that choose a crop and its degradation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from ikc_deploy.benchmarks.degraded_crop import DegradedCrop
from ikc_deploy.evaluation.blurs import DEGRADATIONS

_Command = TypeVar("_Command", bound=Callable[..., Any])


def degraded_crop_options(side: int) -> Callable[[_Command], _Command]:
    """Decorator: the options as one parameter `case`; inside `reports_errors`.

    `side` is the default side of the crop.
    """

    def decorated(command: _Command) -> _Command:
        @click.option(
            "--image",
            type=click.Path(path_type=Path),
            default="samples/kodim23.png",
            show_default=True,
            help="HR.",
        )
        @click.option("--top", type=int, default=120, show_default=True, help="Of the HR crop.")
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
