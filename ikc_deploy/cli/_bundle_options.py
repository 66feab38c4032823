"""Options that choose a bundle, for all commands that run one."""

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
    """Add `--weights` and `--bundle` to a command, as the parameters `weights` and `folder`."""
    weights = click.option(
        "--weights",
        help="Shipped weights, a checkpoint file, or random:ARCHITECTURE; exported into the cache "
        f"on first use.  [default: {DEFAULT_WEIGHTS}]",
    )
    folder = click.option(
        "--bundle",
        "folder",
        type=click.Path(path_type=Path),
        help="Folder written by ikc-export, instead of --weights.",
    )
    return weights(folder(command))


def open_bundle(weights: str | None, folder: Path | None, precision: Precision = "fp32") -> Bundle:
    """Return the bundle that the options choose; weights are exported on first use.

    Args:
        weights: The value of `--weights`; None for the default weights.
        folder: The value of `--bundle`; None to use `weights`.
        precision: Precision of the export; ignored for a folder, which has its own.

    Raises:
        InputError: Both options are given.
        IkcError: The bundle cannot be opened, or the weights cannot be exported.
    """
    if folder is None:
        name = weights or DEFAULT_WEIGHTS
        with err_console.status(f"{name}, {precision}: opening, or exporting on first use"):
            return default_bundle(name, precision)
    if weights is not None:
        raise InputError("give --weights or --bundle, not both")
    return Bundle.open(folder)
