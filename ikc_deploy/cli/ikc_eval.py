"""ikc-eval: measure a bundle's quality under known blurs, Gaussian8 or others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import click

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._output_files import STDOUT, check_output_files
from ikc_deploy.cli._ui import note_skipped, print_table, progress_bars, warn
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation import no_reference
from ikc_deploy.evaluation.blurs import BlurSet, DegradationName
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.pairs import evaluate_pairs, open_pairs
from ikc_deploy.evaluation.protocol import EvaluationReport, Protocol, evaluate
from ikc_deploy.evaluation.render.csv_report import to_csv
from ikc_deploy.evaluation.render.json_report import to_dict
from ikc_deploy.evaluation.render.markdown import to_markdown
from ikc_deploy.evaluation.render.plots import check_plots, save_plots
from ikc_deploy.evaluation.render.result_tables import tables
from ikc_deploy.evaluation.summary import DatasetSummary, summarise
from ikc_deploy.files import write_atomically
from ikc_deploy.loops import LOOPS
from ikc_deploy.option_fields import Option
from ikc_deploy.reporting.plotting import require_matplotlib
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.upscaler import load_bundle


@dataclass(frozen=True)
class DatasetOptions:
    """The images, and the scale of the measurement.

    Raises:
        InputError: There are no images, or a border is given without pairs.
    """

    folders: Annotated[
        tuple[Path, ...],
        Option("Folder of HR images; its name is the name of the dataset.", flags=("--hr",)),
    ] = ()
    lows: Annotated[
        tuple[Path, ...],
        Option(
            "Folder of real LR images, one for each --hr; without --hr, figures that need no HR "
            "image.",
            flags=("--lr",),
        ),
    ] = ()
    border: Annotated[
        int | None,
        Option(
            "With pairs, number of HR pixels to ignore at each edge.",
            default="the scale",
            minimum=0,
        ),
    ] = None
    scale: Annotated[
        int | None,
        Option("Expected scale of the weights; others are refused.", default="the weights' scale"),
    ] = None

    def __post_init__(self) -> None:
        """Require images, and pairs for a border."""
        if not self.folders and not self.lows:
            raise InputError("name the HR images with --hr DIR, or real LR images with --lr DIR")
        if self.border is not None and not (self.lows and self.folders):
            raise InputError("--border is for pairs: give --lr and --hr")


@dataclass(frozen=True)
class BlurOptions:
    """The blurs of the images: at most one option that selects them.

    Raises:
        InputError: More than one option is given, or the sigmas are not numbers.
        KernelError: The file of kernels is invalid.
    """

    sigma_list: Annotated[
        str | None,
        Option(
            "Blur by Gaussians of these sigmas in HR pixels.",
            default="the eight of Gaussian8",
            metavar="S,S,...",
        ),
    ] = None
    ellipses8: Annotated[
        bool,
        Option("Blur by the Gaussians of Gaussian8 stretched 3:2, each in another direction."),
    ] = False
    kernels: Annotated[
        Path | None,
        Option("Blur by the kernels [N,k,k] of an .npy or .npz file instead of Gaussians."),
    ] = None
    degraded_by: Annotated[
        DegradationName | None,
        Option(
            "Degrade by a filter that has no kernel, or by kernels drawn at random, instead.",
            flags=("--degradation",),
        ),
    ] = None

    def read(self, seed: int) -> Callable[[int], BlurSet]:
        """Read files, and return a function from scale to blurs.

        Args:
            seed: Seed of random kernels.
        """
        given = given_options(BlurOptions)
        if len(given) > 1:
            raise InputError(f"give only one of {' and '.join(given)}")
        if self.ellipses8:
            return BlurSet.ellipses8
        if self.kernels is not None:
            read = BlurSet.read(self.kernels)
            return lambda _: read
        if self.degraded_by is not None:
            return partial(BlurSet.degradation, self.degraded_by, seed=seed)
        if self.sigma_list is not None:
            parsed = BlurSet.gaussians(_parse_sigmas(self.sigma_list))
            return lambda _: parsed
        return BlurSet.gaussian8


@dataclass(frozen=True)
class EvaluationOutputs:
    """Outputs in addition to, or (with -) instead of, the tables on standard output.

    Raises:
        InputError: Two outputs are the same file, or both standard output.
        OutputError: An output cannot be written.
        MissingExtraError: The plots need matplotlib.
    """

    per_blur: Annotated[
        bool,
        Option("Print tables with a row for every sigma (or kernel) too.", flags=("--per-sigma",)),
    ] = False
    json: Annotated[
        Path | None,
        Option(
            "JSON file for means and intervals; - (for one of JSON, CSV, Markdown) prints instead."
        ),
    ] = None
    csv: Annotated[Path | None, Option("CSV file for the figures of every image.")] = None
    markdown: Annotated[Path | None, Option("Markdown file for the tables.")] = None
    plots: Annotated[
        Path | None,
        Option("Folder for plots (PNG): PSNR by step, sigma, and true and estimated kernels."),
    ] = None

    def __post_init__(self) -> None:
        """Raise errors now that would otherwise occur after a long measurement."""
        files = {"--json": self.json, "--csv": self.csv, "--markdown": self.markdown}
        check_output_files(files, printed=files)
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
        if STDOUT in texts:
            click.echo(texts.pop(STDOUT), nl=False)
        else:
            for table in found:
                print_table(table.title, table.header, table.rows)
        for path, text in texts.items():
            if path is not None:
                write_atomically(path, text.encode("utf-8", "surrogateescape"))
        if self.plots is not None:
            save_plots(self.plots, summaries, report.records, report.kernels)

    def require_no_reference(self) -> None:
        """Refuse outputs that require HR images."""
        if self.markdown is not None or self.plots is not None or STDOUT in (self.json, self.csv):
            raise InputError("without --hr, only tables and files for --json and --csv are written")

    def write_without_reference(
        self, facts: dict[str, Any], records: Sequence[no_reference.NoReferenceRecord]
    ) -> None:
        """Print tables and write JSON and CSV for LR images without HR images.

        `facts` are the entries of the JSON about the weights.
        """
        rows = no_reference.summary_rows(records)
        for name, found in rows.items():
            cells = map(no_reference.table_cells, found)
            title = f"{name} (images: {found[0]['images']}), no HR images x{facts['scale']}: "
            print_table(title + facts["weights"], no_reference.TABLE_HEADER, cells)
        if self.json is not None:
            values = {"protocol": "no-reference", **facts, "datasets": rows}
            text = f"{json.dumps(values, indent=2, allow_nan=False)}\n"
            write_atomically(self.json, text.encode())
        if self.csv is not None:
            text = no_reference.to_csv(records)
            write_atomically(self.csv, text.encode("utf-8", "surrogateescape"))


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@option_group(DatasetOptions, "datasets")
@option_group(BundleOptions, "chosen")
@option_group(
    UpscalerOptions,
    "options",
    only=("iters", "estimate", "self_ensemble", "threads"),
    types={"estimate": click.Choice(["full", "crops"])},
    defaults={"estimate": UpscalerOptions.estimate},
    words={"iters": ", ".join(f"{loop.iters} for {name}" for name, loop in LOOPS.items())},
)
@option_group(BlurOptions, "blurs")
@option_group(Degradation, "degradation")
@option_group(EvaluationOutputs, "outputs")
def main(
    datasets: DatasetOptions,
    chosen: BundleOptions,
    options: UpscalerOptions,
    blurs: BlurOptions,
    degradation: Degradation,
    outputs: EvaluationOutputs,
) -> None:
    """Measure PSNR and SSIM (luma) and the error of the estimated blur, step by step.

    Every HR image is degraded by the eight Gaussians of the Gaussian8 protocol, or by the given
    blurs. Results are means over images and blurs at fixed steps, compared with bicubic upscaling
    and with the true kernel. The 95 % intervals estimate the variation over similar images
    (bootstrap).

    With --lr, real LR images are upscaled, which are matched with the HR images by name (0801x4.png
    with 0801.png, a_LR4.png with a_HR.png). Without --hr, no-reference metrics are measured: the
    blur effect of the outputs and their consistency with the input. They are only comparable for
    outputs of the same input.
    """
    choose_blurs = blurs.read(degradation.seed)
    if datasets.lows:
        _refuse_degradation()
    bundle = _open(chosen, datasets.scale)
    if bundle.manifest.random_weights:
        warn(f"{bundle.manifest.name} has random weights: only the bicubic figures are meaningful")
    # Never tiled, so that results do not depend on the machine's memory.
    # The paper's number of corrections, not the recommended one, so that results are comparable.
    iters = bundle.loop.iters if options.iters is None else options.iters
    whole = replace(options, iters=iters, tiles=TileSettings(None))
    if datasets.lows:
        _evaluate_real(datasets, bundle, whole, outputs, degradation.seed)
        return
    protocol = Protocol(choose_blurs(bundle.manifest.scale), degradation)
    with load_bundle(bundle, whole) as upscaler, progress_bars() as bars:
        report = evaluate(upscaler, datasets.folders, protocol, bars.show)
    outputs.write(report, summarise(report.records, degradation.seed))
    note_skipped(datasets.folders)


def _evaluate_real(
    datasets: DatasetOptions,
    bundle: Bundle,
    options: UpscalerOptions,
    outputs: EvaluationOutputs,
    seed: int,
) -> None:
    """Measure real LR images, with their HR images or without."""
    manifest = bundle.manifest
    if datasets.folders:
        pairs = open_pairs(datasets.lows, datasets.folders, manifest.scale)
        with load_bundle(bundle, options) as upscaler, progress_bars() as bars:
            report = evaluate_pairs(upscaler, pairs, datasets.border, bars.show)
        outputs.write(report, summarise(report.records, seed))
    else:
        outputs.require_no_reference()
        images = no_reference.open_lr(datasets.lows)
        with load_bundle(bundle, options) as upscaler, progress_bars() as bars:
            records = no_reference.measure_without_reference(upscaler, images, bars.show)
        facts = {"scale": manifest.scale, "weights": manifest.name}
        facts |= {"weights_sha256": manifest.weights_sha256, "estimate": options.estimate}
        facts |= {"self_ensemble": options.self_ensemble}
        outputs.write_without_reference(facts, records)
    note_skipped(dict.fromkeys((*datasets.lows, *datasets.folders)))


def _refuse_degradation() -> None:
    """Refuse options that degrade HR images, because real LR images are given."""
    given = given_options(BlurOptions)
    given += given_options(EvaluationOutputs, without=("json", "csv", "markdown", "plots"))
    given += given_options(Degradation, without=("seed",))
    if given:
        raise InputError(f"--lr gives real LR images; leave out {', '.join(given)}")


def _parse_sigmas(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if text.strip())
    except ValueError:
        raise InputError(
            f"invalid --sigma-list '{text}': expected numbers with commas, for example 1.8,2.6"
        ) from None


def _open(chosen: BundleOptions, scale: int | None) -> Bundle:
    bundle = chosen.open()
    found = bundle.manifest.scale
    if scale is not None and scale != found:
        raise InputError(
            f"{bundle.manifest.name} upscales x{found}, not x{scale}; leave out --scale, "
            f"or give weights for x{scale} with --weights or --bundle"
        )
    return bundle


if __name__ == "__main__":
    main()
