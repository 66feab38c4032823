"""Options that choose an upscaler and its settings, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from ikc_deploy import load
from ikc_deploy.batch.settings import UpscalerSettings
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.cli._blur_options import BlurOptions, blur_options
from ikc_deploy.cli._bundle_options import bundle_options, open_bundle
from ikc_deploy.cli._memory_options import memory_options
from ikc_deploy.errors import InputError
from ikc_deploy.imaging.image_files import check_bundle
from ikc_deploy.runtime.backends import BACKENDS
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.weights import RANDOM_PREFIX

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class UpscalerOptions:
    """The upscaler options of a command line, as given."""

    iters: int | None
    blur: BlurOptions
    tiles: TileSettings
    weights: str | None
    folder: Path | None
    """Folder of a bundle; None to use `weights`."""
    backend: str
    threads: int

    def open_bundle(self) -> Bundle:
        """Return the bundle, checked once for image files and for the given sigma.

        Raises `InputError` or `KernelError` if it does not support them.
        """
        if self.weights is not None and self.weights.startswith(RANDOM_PREFIX):
            raise InputError(
                f"'{self.weights}' means random weights, for benchmarks only; give trained ones"
            )
        bundle = open_bundle(self.weights, self.folder)
        check_bundle(bundle)
        if self.blur.sigma is not None:
            bundle.basis.code_of_sigma(self.blur.sigma)
        return bundle

    def settings(self) -> UpscalerSettings:
        """Return the settings with which other processes open their own upscalers."""
        return UpscalerSettings(
            bundle=self.open_bundle().path.absolute(),
            backend=self.backend,
            iters=self.iters,
            sigma=self.blur.sigma,
            estimate=self.blur.estimate or "full",
            tiles=self.tiles,
            threads=self.threads,
        )

    def open_upscaler(self) -> Upscaler:
        """Return a new upscaler in this process; the caller closes it."""
        return load(
            self.open_bundle(),
            self.backend,
            self.iters,
            threads=self.threads,
            estimate=self.blur.estimate or "full",
            tile=self.tiles.tile,
            max_memory=self.tiles.max_memory,
        )


def upscaler_options(command: _Command) -> _Command:
    """Add all upscaler options to a command, as one parameter `options: UpscalerOptions`.

    Apply it inside `reports_errors`.
    """

    @click.option(
        "--iters",
        type=click.IntRange(min=0),
        default=None,
        help="Number of corrections of the estimated blur.  [default: the number that the weights "
        "recommend]",
    )
    @blur_options
    @memory_options
    @bundle_options
    @click.option(
        "--backend",
        default="auto",
        show_default=True,
        help=f"Runtime of the networks: auto, or one of {', '.join(BACKENDS)}.",
    )
    @click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        help="Number of CPU cores to use.  [default: all]",
    )
    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        mine = {field.name: kwargs.pop(field.name) for field in fields(UpscalerOptions)}
        return command(*args, **kwargs, options=UpscalerOptions(**mine))

    return cast("_Command", gathered)
