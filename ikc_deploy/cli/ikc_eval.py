"""ikc-eval: measure a bundle's quality under known blurs, Gaussian8 or others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._eval_real import evaluate_real_pairs, evaluate_without_reference
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._ui import note_skipped, print_table, progress_bars, warn
from ikc_deploy.cli._value_types import PATH
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import DEGRADATIONS, BlurSet, DegradationName
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.protocol import EvaluationReport, Protocol, evaluate
from ikc_deploy.evaluation.render.csv_report import to_csv
from ikc_deploy.evaluation.render.json_report import to_dict
from ikc_deploy.evaluation.render.markdown import to_markdown
from ikc_deploy.evaluation.render.plots import check_plots, save_plots
from ikc_deploy.evaluation.render.tables import tables
from ikc_deploy.evaluation.summary import DatasetSummary, summarise
from ikc_deploy.files import check_file, write_atomically
from ikc_deploy.loops import LOOPS
from ikc_deploy.reporting.plotting import require_matplotlib
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.upscaler import load_bundle

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
                print_table(table.title, table.header, table.rows)
        for path, text in texts.items():
            if path is not None:
                write_atomically(path, text.encode("utf-8", "surrogateescape"))
        if self.plots is not None:
            save_plots(self.plots, summaries, report.records, report.kernels)


@click.command(context_settings=HELP)
@reports_errors
@click.option(
    "--hr",
    "folders",
    multiple=True,
    type=PATH,
    help="Folder of HR images; its name is the name of the dataset (repeatable).",
)
@click.option(
    "--lr",
    "lows",
    multiple=True,
    type=PATH,
    help="Folder of real LR images, one for each --hr; without --hr, figures that need no HR image "
    "(repeatable).",
)
@click.option(
    "--border",
    type=click.IntRange(min=0),
    help="Pixels of the HR images of pairs that are left out at each edge.  [default: the scale]",
)
@click.option(
    "--scale",
    type=int,
    help="Expected scale of the weights; others are refused.  [default: the weights' scale]",
)
@option_group(BundleOptions, "chosen")
@option_group(
    UpscalerOptions,
    "options",
    only=("iters", "estimate", "threads"),
    types={"estimate": click.Choice(["full", "crops"])},
    defaults={"estimate": UpscalerOptions.estimate},
    words={"iters": ", ".join(f"{loop.iters} for {name}" for name, loop in LOOPS.items())},
)
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
    type=PATH,
    help="Blur by the kernels [N,k,k] of an .npy or .npz file instead of Gaussians.",
)
@click.option(
    "--degradation",
    "degraded_by",
    type=click.Choice(DEGRADATIONS),
    help="Degrade by a filter that has no kernel, or by kernels drawn at random, instead.",
)
@option_group(Degradation, "degradation")
@click.option(
    "--per-sigma", is_flag=True, help="Print tables with a row for every sigma (or kernel) too."
)
@click.option(
    "--json",
    "json_path",
    type=PATH,
    help="JSON file for means and intervals; - (for one of JSON, CSV, Markdown) prints instead.",
)
@click.option("--csv", "csv_path", type=PATH, help="CSV file for the figures of every image.")
@click.option("--markdown", type=PATH, help="Markdown file for the tables.")
@click.option(
    "--plots",
    type=PATH,
    help="Folder for plots (PNG): PSNR by step, sigma, and true beside estimated kernels.",
)
def main(
    folders: tuple[Path, ...],
    lows: tuple[Path, ...],
    border: int | None,
    scale: int | None,
    chosen: BundleOptions,
    options: UpscalerOptions,
    sigma_list: str | None,
    ellipses8: bool,
    kernels: Path | None,
    degraded_by: DegradationName | None,
    degradation: Degradation,
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

    With --lr, real LR images are upscaled, which match the HR images by name (0801x4.png to
    0801.png, a_LR4.png to a_HR.png). Without --hr, the blur effect of the outputs and their
    consistency with the input are measured, which only compare outputs of the same input.
    """
    if not folders and not lows:
        raise InputError("name the HR images with --hr DIR, or real LR images with --lr DIR")
    if border is not None and not (lows and folders):
        raise InputError("--border is for pairs: give --lr and --hr")
    if lows:
        _refuse_degradation()
    outputs = _Outputs(json_path, csv_path, markdown, plots, per_sigma)
    choose_blurs = _blurs(sigma_list, ellipses8, kernels, degraded_by, degradation.seed)
    bundle = _open(chosen, scale)
    if bundle.manifest.random_weights:
        warn(f"{bundle.manifest.name} has random weights: only the bicubic figures are meaningful")
    # Whole images regardless of memory: figures must not depend on the machine.
    # As in the papers, not what each set of weights recommends, so that figures are comparable.
    iters = bundle.loop.iters if options.iters is None else options.iters
    whole = replace(options, iters=iters, tiles=TileSettings(None))
    if lows and not folders:
        if markdown is not None or plots is not None or _STDOUT in (json_path, csv_path):
            raise InputError("without --hr, only tables and files for --json and --csv are written")
        facts = {"scale": bundle.manifest.scale, "weights": bundle.manifest.name}
        facts |= {"weights_sha256": bundle.manifest.weights_sha256, "estimate": options.estimate}
        evaluate_without_reference(
            lambda: load_bundle(bundle, whole), lows, facts, json_path, csv_path
        )
        note_skipped(lows)
        return
    if lows:
        report = evaluate_real_pairs(
            lambda: load_bundle(bundle, whole), bundle.manifest.scale, lows, folders, border
        )
        outputs.write(report, summarise(report.records, degradation.seed))
        note_skipped(dict.fromkeys((*lows, *folders)))
        return
    protocol = Protocol(choose_blurs(bundle.manifest.scale), degradation)
    with load_bundle(bundle, whole) as upscaler, progress_bars() as bars:
        report = evaluate(upscaler, folders, protocol, bars.show)
    outputs.write(report, summarise(report.records, degradation.seed))
    note_skipped(folders)


def _refuse_degradation() -> None:
    """Refuse options that degrade HR images, because real LR images are given."""
    mine = ("--sigma-list", "--ellipses8", "--kernels", "--degradation", "--per-sigma")
    ctx = click.get_current_context()
    given = [
        each.opts[0]
        for each in ctx.command.params
        if each.opts[0] in mine
        and ctx.get_parameter_source(each.name or "") != ParameterSource.DEFAULT
    ]
    given += [name for name in given_options(Degradation) if name != "--seed"]
    if given:
        raise InputError(f"--lr gives real LR images; leave out {', '.join(given)}")


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
