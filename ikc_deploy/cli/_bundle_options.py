"""The options that choose a bundle, shared by the commands that run one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.cli._common import err_console
from ikc_deploy.errors import InputError
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.weights import DEFAULT_WEIGHTS

_Command = TypeVar("_Command", bound=Callable[..., Any])


def bundle_options(command: _Command) -> _Command:
    """Decorator: `--weights` and `--bundle`, as the parameters `weights` and `folder`."""
    weights = click.option(
        "--weights",
        help="Shipped weights, a checkpoint file, or random:ARCHITECTURE; exported once into the "
        f"cache.  [default: {DEFAULT_WEIGHTS}]",
    )
    folder = click.option(
        "--bundle",
        "folder",
        type=click.Path(path_type=Path),
        help="A folder written by ikc-export, instead of --weights.",
    )
    return weights(folder(command))


def open_bundle(weights: str | None, folder: Path | None, precision: Precision = "fp32") -> Bundle:
    """The bundle that the options mean; `precision` is for weights, a folder has its own.

    Raises `InputError` if both options are given, and what opening or exporting raises.
    """
    if folder is None:
        name = weights or DEFAULT_WEIGHTS
        with err_console.status(f"{name}, {precision}: opening, or exporting on first use"):
            return default_bundle(name, precision)
    if weights is not None:
        raise InputError("give --weights or --bundle, not both")
    return Bundle.open(folder)
