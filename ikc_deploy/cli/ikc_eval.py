"""ikc-eval: measure a bundle's quality under known blurs, Gaussian8 or others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ikc_deploy import Bundle, load
from ikc_deploy.bundle.manifest import DEFAULT_ITERS
from ikc_deploy.cli._bundle_options import bundle_options, open_bundle
from ikc_deploy.cli._common import HELP, err_console, note_skipped, out_console, reports_errors
from ikc_deploy.cli._number_types import FiniteRange
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import DEGRADATIONS, BlurSet, DegradationName
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.protocol import EvaluationReport, Protocol, evaluate
from ikc_deploy.evaluation.render.csv_report import to_csv
from ikc_deploy.evaluation.render.json_report import to_dict
from ikc_deploy.evaluation.render.markdown import to_markdown
from ikc_deploy.evaluation.render.plots import check_plots, save_plots
from ikc_deploy.evaluation.render.tables import tables
from ikc_deploy.evaluation.render.terminal import print_table
from ikc_deploy.evaluation.summary import DatasetSummary, summarise
from ikc_deploy.files import check_file, write_atomically
from ikc_deploy.reporting.plotting import require_matplotlib
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.upscaler import Upscaler

_PATH = click.Path(path_type=Path)
_STDOUT: Final = Path("-")


@dataclass(frozen=True)
class _Outputs:
    """Files to write besides the tables on standard output; one of them may be - instead."""

    json: Path | None
    csv: Path | None
    markdown: Path | None
    plots: Path | None
    per_blur: bool

    def __post_init__(self) -> None:
        """Raise an error now for what would fail after a long measurement."""
        files = {"--json": self.json, "--csv": self.csv, "--markdown": self.markdown}
        named = {option: path for option, path in files.items() if path not in (None, _STDOUT)}
        for path in named.values():
            check_file(path)
        if len({path.resolve() for path in named.values()}) < len(named):
            raise InputError(f"{', '.join(named)} must be different files")
        printed = [option for option, path in files.items() if path == _STDOUT]
        if len(printed) > 1:
            raise InputError(f"only one of {' and '.join(printed)} can be - (standard output)")
        if self.plots is not None:
            require_matplotlib("--plots")
            check_plots(self.plots)

    def write(self, report: EvaluationReport, summaries: tuple[DatasetSummary, ...]) -> None:
        """Print the results, then write the files, so that a failed write loses nothing."""
        found = tables(report, summaries, self.per_blur)
        figures = json.dumps(to_dict(report, summaries), indent=2, allow_nan=False)
        texts = {
            self.json: f"{figures}\n",
            self.csv: to_csv(report),
            self.markdown: to_markdown(report, found),
        }
        if _STDOUT in texts:
            click.echo(texts.pop(_STDOUT), nl=False)
        else:
            for table in found:
                print_table(out_console, table)
        for path, text in texts.items():
            if path is not None:
                write_atomically(path, text.encode("utf-8", "surrogateescape"))
        if self.plots is not None:
            save_plots(self.plots, summaries, report.records)


@click.command(context_settings=HELP)
@click.option(
    "--hr",
    "folders",
    multiple=True,
    required=True,
    type=_PATH,
    help="Folder of HR images; its name is the name of the dataset (repeatable).",
)
@click.option(
    "--scale",
    type=int,
    help="Expected scale of the weights; others are refused.  [default: the weights' scale]",
)
@bundle_options
@click.option(
    "--iters", type=int, default=DEFAULT_ITERS, show_default=True, help="Number of corrections."
)
@click.option(
    "--estimate",
    type=click.Choice(["full", "crops"]),
    default="full",
    show_default=True,
    help="Where the blur is corrected: on the whole image, or on a few textured crops.",
)
@click.option("--threads", type=int, default=0, help="Number of CPU cores to use.  [default: all]")
@click.option(
    "--sigma-list",
    metavar="S,S,...",
    help="Blur by Gaussians of these sigmas in HR pixels.  [default: the eight of Gaussian8]",
)
@click.option(
    "--ellipses8",
    is_flag=True,
    help="Blur by the Gaussians of Gaussian8 stretched 3:2, each in another direction.",
)
@click.option(
    "--kernels",
    type=_PATH,
    help="Blur by the kernels [N,k,k] of an .npy or .npz file instead of Gaussians.",
)
@click.option(
    "--degradation",
    "degraded_by",
    type=click.Choice(DEGRADATIONS),
    help="Degrade by a filter that has no kernel, or by kernels drawn at random, instead.",
)
@click.option(
    "--noise",
    type=FiniteRange(min=0),
    default=0.0,
    metavar="LEVELS",
    help="Add Gaussian noise to the LR images, with this standard deviation in 8-bit levels.",
)
@click.option(
    "--jpeg", type=int, metavar="QUALITY", help="Compress the LR images by JPEG, quality 1 to 100."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the noise, of kernels drawn at random, and of the intervals.",
)
@click.option(
    "--per-sigma", is_flag=True, help="Print tables with a row for every sigma (or kernel) too."
)
@click.option(
    "--json",
    "json_path",
    type=_PATH,
    help="JSON file for means and intervals; - (for one of JSON, CSV, Markdown) prints instead.",
)
@click.option("--csv", "csv_path", type=_PATH, help="CSV file for the figures of every image.")
@click.option("--markdown", type=_PATH, help="Markdown file for the tables.")
@click.option("--plots", type=_PATH, help="Folder for plots of PSNR by step and of sigma (PNG).")
@reports_errors
def main(
    folders: tuple[Path, ...],
    scale: int | None,
    weights: str | None,
    folder: Path | None,
    iters: int,
    estimate: Estimate,
    threads: int,
    sigma_list: str | None,
    ellipses8: bool,
    kernels: Path | None,
    degraded_by: DegradationName | None,
    noise: float,
    jpeg: int | None,
    seed: int,
    per_sigma: bool,
    json_path: Path | None,
    csv_path: Path | None,
    markdown: Path | None,
    plots: Path | None,
) -> None:
    """Measure PSNR and SSIM (luma) and the error of the estimated blur, step by step.

    Every HR image is degraded by the eight Gaussians of the Gaussian8 protocol, or by the blurs
    given. Figures are means over images and blurs at fixed steps, with bicubic upscaling and the
    true kernel for comparison; 95 % intervals are for other images of the same kind (bootstrap).
    """
    outputs = _Outputs(json_path, csv_path, markdown, plots, per_sigma)
    degradation = Degradation(noise, jpeg, seed)
    choose_blurs = _blurs(sigma_list, ellipses8, kernels, degraded_by, seed)
    bundle = _open(weights, folder, scale)
    if bundle.manifest.random_weights:
        err_console.print(
            f"[yellow]warning:[/] {bundle.manifest.name} has random weights: only the bicubic "
            "figures are meaningful",
            soft_wrap=True,
        )
    protocol = Protocol(choose_blurs(bundle.manifest.scale), degradation)
    # Whole images regardless of memory: figures must not depend on the machine.
    with load(bundle, iters=iters, threads=threads, estimate=estimate, tile=None) as upscaler:
        report = _evaluate(upscaler, folders, protocol)
    outputs.write(report, summarise(report.records, seed))
    note_skipped(folders)


def _blurs(
    sigma_list: str | None,
    ellipses8: bool,
    kernels: Path | None,
    degraded_by: DegradationName | None,
    seed: int,
) -> Callable[[int], BlurSet]:
    """Return a function from scale to the blurs that the options choose; files are read now."""
    options = {
        "--sigma-list": sigma_list,
        "--ellipses8": ellipses8,
        "--kernels": kernels,
        "--degradation": degraded_by,
    }
    given = [name for name, value in options.items() if value not in (None, False)]
    if len(given) > 1:
        raise InputError(f"give only one of {' and '.join(given)}")
    if ellipses8:
        return BlurSet.ellipses8
    if kernels is not None:
        read = BlurSet.read(kernels)
        return lambda _: read
    if degraded_by is not None:
        return partial(BlurSet.degradation, degraded_by, seed=seed)
    if sigma_list is not None:
        parsed = BlurSet.gaussians(_parse_sigmas(sigma_list))
        return lambda _: parsed
    return BlurSet.gaussian8


def _parse_sigmas(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if text.strip())
    except ValueError:
        raise InputError(
            f"invalid --sigma-list '{text}': expected numbers with commas, for example 1.8,2.6"
        ) from None


def _open(weights: str | None, folder: Path | None, scale: int | None) -> Bundle:
    bundle = open_bundle(weights, folder)
    found = bundle.manifest.scale
    if scale is not None and scale != found:
        raise InputError(
            f"{bundle.manifest.name} upscales x{found}, not x{scale}; leave out --scale, "
            f"or give weights for x{scale} with --weights or --bundle"
        )
    return bundle


def _evaluate(
    upscaler: Upscaler, folders: tuple[Path, ...], protocol: Protocol
) -> EvaluationReport:
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

        return evaluate(upscaler, folders, protocol, show)


if __name__ == "__main__":
    main()
