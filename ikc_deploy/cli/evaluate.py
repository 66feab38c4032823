"""ikc-eval: a bundle's quality on the Gaussian8 protocol."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ikc_deploy import Bundle, load
from ikc_deploy.cli.bundles import bundle_options, open_bundle
from ikc_deploy.cli.common import HELP, err_console, out_console, reports_errors
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.protocol import DatasetReport, Report, evaluate
from ikc_deploy.files import write_atomically
from ikc_deploy.runtime.upscaler import DEFAULT_ITERS, Upscaler

_STDOUT = Path("-")


@click.command(context_settings=HELP)
@click.option(
    "--hr",
    "folders",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of HR images; the dataset is named like it (repeatable).",
)
@click.option(
    "--scale", type=int, help="Refuse weights of another scale.  [default: the weights' scale]"
)
@bundle_options
@click.option(
    "--iters", type=int, default=DEFAULT_ITERS, show_default=True, help="Corrections to follow."
)
@click.option("--threads", type=int, default=0, help="CPU cores to use.  [default: all]")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="Write the figures to this file too; - prints them instead of the tables.",
)
@reports_errors
def main(
    folders: tuple[Path, ...],
    scale: int | None,
    weights: str | None,
    folder: Path | None,
    iters: int,
    threads: int,
    json_path: Path | None,
) -> None:
    """Measure PSNR and SSIM (luma) and the error of the estimated blur, step by step.

    Every HR image is degraded by the eight Gaussians of the Gaussian8 protocol. Figures are means
    over images and sigmas, at fixed steps, beside bicubic upscaling and the true kernel.
    """
    if json_path is not None and json_path.is_dir():
        raise InputError(f"--json '{json_path}' is a folder; give a file in it, or -")
    bundle = _open(weights, folder, scale)
    if bundle.manifest.random_weights:
        err_console.print(
            f"[yellow]warning:[/] {bundle.manifest.name} has random weights: only the bicubic "
            "figures mean anything",
            soft_wrap=True,
        )
    with load(bundle, iters=iters, threads=threads) as upscaler:
        report = _evaluate(upscaler, folders)
    figures = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    if json_path == _STDOUT:
        click.echo(figures)
        return
    for name, dataset in report.datasets.items():
        out_console.print(_table(name, dataset, report))
    if json_path is not None:
        write_atomically(json_path, f"{figures}\n".encode())


def _open(weights: str | None, folder: Path | None, scale: int | None) -> Bundle:
    bundle = open_bundle(weights, folder)
    found = bundle.manifest.scale
    if scale is not None and scale != found:
        raise InputError(
            f"{bundle.manifest.name} upscales x{found}, not x{scale}; leave out --scale, "
            f"or give weights for x{scale} with --weights or --bundle"
        )
    return bundle


def _evaluate(upscaler: Upscaler, folders: tuple[Path, ...]) -> Report:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Off a terminal even a transient bar leaves an empty line behind.
    quiet = not err_console.is_terminal
    with Progress(*columns, console=err_console, transient=True, disable=quiet) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        return evaluate(upscaler, folders, show)


def _table(name: str, dataset: DatasetReport, report: Report) -> Table:
    manifest, figures = report.manifest, dataset.figures
    title = f"{name} (images: {dataset.images}), Gaussian8 x{manifest.scale}: {manifest.name}"
    # Folder names may hold square brackets, which are markup in a plain string.
    table = Table(title=Text(title))
    table.add_column("")
    for column in ("PSNR-Y dB", "SSIM-Y", "sigma MAE"):
        table.add_column(column, justify="right")

    def add(label: str, psnr: float, ssim: float, sigma: str = "") -> None:
        table.add_row(label, f"{psnr:.2f}", f"{ssim:.4f}", sigma)

    add("bicubic", figures.bicubic.psnr_y, figures.bicubic.ssim_y)
    for row in figures.steps:
        label = f"step {row.step}" if row.step else "step 0: predictor only"
        add(label, row.psnr_y, row.ssim_y, f"{row.sigma_mae:.3f}")
    add("true kernel", figures.true_kernel.psnr_y, figures.true_kernel.ssim_y)
    return table


if __name__ == "__main__":
    main()
