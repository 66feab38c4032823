"""ikc-prepare: degrade HR images into the folders that super-resolution code expects."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ikc_deploy.cli._common import HELP, err_console, note_skipped, reports_errors, say
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.prepare import IMAGE_FOLDERS, Layout, PrepareSettings, prepare


@click.command(context_settings=HELP)
@click.argument(
    "sources", metavar="SRC...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    "-o",
    "destination",
    metavar="DST",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for HR, LR, LRblur, Bic and kernels.",
)
@click.option("--scale", type=int, default=4, show_default=True, help="HR side divided by LR side.")
@click.option("--sigma", type=float, help="Blur every image by this sigma, in HR pixels.")
@click.option(
    "--sigma-range",
    type=(float, float),
    metavar="LO HI",
    help="Range from which each image's sigma is drawn uniformly.  [default: the paper's range for "
    "the scale]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for drawing the sigmas.")
@reports_errors
def main(
    sources: tuple[Path, ...],
    destination: Path,
    scale: int,
    sigma: float | None,
    sigma_range: tuple[float, float] | None,
    seed: int,
) -> None:
    """Degrade the images of SRC (files or folders) into DST, by isotropic Gaussian blur.

    Writes DST/HR/x4, DST/LR/x4 (shrunk, not blurred), DST/LRblur/x4 (blurred and shrunk),
    DST/Bic/x4 (LR enlarged) and the sigmas as DST/kernels/x4.json. The same seed and file name
    always produce the same blur.
    """
    if sigma is not None and sigma_range is not None:
        raise InputError("give --sigma or --sigma-range, not both")
    drawn_from = sigma_range if sigma is None else (sigma, sigma)
    settings = PrepareSettings(scale, drawn_from, seed)
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Off a terminal even a transient bar leaves an empty line behind.
    quiet = not err_console.is_terminal
    with Progress(*columns, console=err_console, transient=True, disable=quiet) as bars:
        task = bars.add_task("preparing", total=None)
        sigmas = prepare(
            sources,
            destination,
            settings,
            lambda done, total: bars.update(task, completed=done, total=total),
        )
    kernels = Layout(destination, scale).kernels
    note_skipped(sources)
    say(f"{destination}: {', '.join(IMAGE_FOLDERS)} (images: {len(sigmas)})")
    say(f"{kernels}: the sigmas of the images")


if __name__ == "__main__":
    main()
