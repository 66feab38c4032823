"""ikc-prepare: degrade HR images into the folders that super-resolution code expects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import click

from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import note_skipped, progress_bars, say
from ikc_deploy.cli._value_types import PATH, FiniteNumber
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.prepare import IMAGE_FOLDERS, Layout, PrepareSettings, prepare
from ikc_deploy.option_fields import Option


@dataclass(frozen=True)
class PrepareOptions:
    """Where the images are written, and a single blur for all."""

    destination: Annotated[
        Path,
        Option("Folder for HR, LR, LRblur, Bic and kernels.", flags=("--out", "-o"), metavar="DST"),
    ]
    sigma: Annotated[float | None, Option("Blur every image by this sigma, in HR pixels.")] = None


@click.command(context_settings=HELP)
@reports_errors
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=PATH)
@option_group(PrepareOptions, "options")
@option_group(
    PrepareSettings,
    "settings",
    types={"sigma_range": (FiniteNumber(), FiniteNumber())},
)
def main(sources: tuple[Path, ...], options: PrepareOptions, settings: PrepareSettings) -> None:
    """Degrade the images of SRC (files or folders) into DST, by isotropic Gaussian blur.

    Writes DST/HR/x4, DST/LR/x4 (shrunk, not blurred), DST/LRblur/x4 (blurred and shrunk),
    DST/Bic/x4 (LR enlarged) and the sigmas as DST/kernels/x4.json. The same seed and file name
    always produce the same blur.
    """
    sigma, destination = options.sigma, options.destination
    if sigma is not None:
        if settings.sigma_range is not None:
            raise InputError("give --sigma or --sigma-range, not both")
        settings = replace(settings, sigma_range=(sigma, sigma))
    with progress_bars() as bars:
        sigmas = prepare(
            sources,
            destination,
            settings,
            lambda done, total: bars.show("preparing", done, total),
        )
    kernels = Layout(destination, settings.scale).kernels
    note_skipped(sources)
    say(f"{destination}: {', '.join(IMAGE_FOLDERS)} (images: {len(sigmas)})")
    say(f"{kernels}: the sigmas of the images")


if __name__ == "__main__":
    main()
