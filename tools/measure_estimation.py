"""Measure quality and speed of the ways to estimate the blur, for docs/estimation.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import note
from ikc_deploy.cli._value_types import OUTPUT_FILE
from ikc_deploy.files import write_atomically
from ikc_deploy.reporting.plotting import require_matplotlib, save_figure
from tools.measuring.drift import drift_figure
from tools.measuring.estimation_modes import EstimationPlan, measure


@click.command(context_settings=HELP)
@reports_errors
@click.option(
    "--hr", "folders", multiple=True, type=click.Path(path_type=Path), help="Folder of HR images."
)
@click.option("--clips", type=click.Path(path_type=Path), help="Folder of HR images to pan over.")
@click.option(
    "--blurs", type=int, default=8, show_default=True, help="Number of Gaussian8's blurs."
)
@click.option("--clip-images", type=int, default=8, show_default=True)
@click.option("--clip-frames", type=int, default=16, show_default=True)
@click.option("--drift-frames", type=int, default=64, show_default=True)
@click.option(
    "--rounds", type=int, default=5, show_default=True, help="Timed calls; 0 for no timing."
)
@click.option("--threads", type=int, default=0, help="CPU cores to use.  [default: all]")
@click.option("--json", "path", type=OUTPUT_FILE, required=True)
@click.option(
    "--plot", type=OUTPUT_FILE, help="Plot of sigma under a drifting blur (PNG); needs --clips."
)
@option_group(BundleOptions, "chosen")
def main(
    threads: int,
    path: Path,
    plot: Path | None,
    chosen: BundleOptions,
    **plan: Any,
) -> None:
    """Measure the ways to estimate the blur; the files are written after every part."""
    if plot is not None:
        require_matplotlib("--plot")

    def keep(report: dict[str, Any]) -> None:
        text = json.dumps(report, indent=2, default=float)
        write_atomically(path, f"{text}\n".encode())
        if plot is not None and "drift_sigma" in report:
            save_figure(drift_figure(report["drift_true_sigma"], report["drift_sigma"]), plot)
        note(f"{path}: {', '.join(report)}")

    measure(chosen.open(), threads, EstimationPlan(**plan), keep)


if __name__ == "__main__":
    main()
