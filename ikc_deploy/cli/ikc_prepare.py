"""ikc-prepare: degrade HR images into the folders that super-resolution code expects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import click

from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import note_skipped, progress_bars, result
from ikc_deploy.cli._value_types import PATH, FiniteNumber
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.prepare import IMAGE_FOLDERS, Layout, PrepareSettings
from ikc_deploy.evaluation.prepare_sets import SetOptions, plan_sets, prepare_sets
from ikc_deploy.option_fields import Option


@dataclass(frozen=True)
class PrepareOptions:
    """Where the images are written, and a single blur for all."""

    destination: Annotated[
        Path,
        Option("Folder for HR, LR, LRblur, Bic and kernels.", flags=("--out", "-o"), metavar="DST"),
    ]
    sigma: Annotated[float | None, Option("Blur every image by this sigma, in HR pixels.")] = None


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=PATH)
@option_group(PrepareOptions, "options")
@option_group(
    PrepareSettings,
    "settings",
    types={"sigma_range": (FiniteNumber(), FiniteNumber())},
)
@option_group(SetOptions, "sets")
def main(
    sources: tuple[Path, ...],
    options: PrepareOptions,
    settings: PrepareSettings,
    sets: SetOptions,
) -> None:
    """Degrade the images of SRC (files or folders) into DST.

    Writes DST/HR/x4, DST/LR/x4 (downscaled, not blurred), DST/LRblur/x4 (blurred and downscaled),
    DST/Bic/x4 (LR enlarged) and the sigmas as DST/kernels/x4.json. The same seed and file name
    always produce the same blur.

    With --sets and --gaussian8, there is a folder in DST for each source and for each sigma, with
    all of that. With --convention fkp, the blurs are elliptic Gaussians as in FKP's test images,
    which are sampled instead of downscaled bicubically; kernels/x4/NAME.npy has each kernel.
    """
    sigma, destination = options.sigma, options.destination
    if sigma is not None:
        if settings.sigma_range is not None:
            raise InputError("give --sigma or --sigma-range, not both")
        settings = replace(settings, sigma_range=(sigma, sigma))
    planned = plan_sets(sources, destination, settings, sets)
    with progress_bars() as bars:
        for each, sigmas in prepare_sets(
            planned, lambda done, total: bars.show("preparing", done, total)
        ):
            kernels = Layout(each.destination, settings.scale).kernels
            result(f"{each.destination}: {', '.join(IMAGE_FOLDERS)} (images: {len(sigmas)})")
            result(f"{kernels}: the sigmas of the images")
    note_skipped(sources, recursive_to=destination if settings.recursive else None)


if __name__ == "__main__":
    main()
