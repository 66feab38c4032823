"""Measure the effect of each part of IKE on one crop, for docs/offline.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._ui import note
from ikc_deploy.cli._value_types import OUTPUT_FILE
from ikc_deploy.files import write_atomically
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.offline.ike import IkeSettings
from tools._crop_options import degraded_crop_options
from tools.measuring.degraded_crop import DegradedCrop
from tools.measuring.ike_ablation import AblationPlan, measure

_PATH = click.Path(path_type=Path)


@click.command(context_settings=HELP)
@reports_errors
@degraded_crop_options(side=192)
@click.option("--threads", type=int, default=1, show_default=True, help="CPU cores to use.")
@click.option(
    "--iterations", type=int, default=400, show_default=True, help="Iterations of every row."
)
@click.option("--crop", type=int, default=48, show_default=True, help="Side of the crops of a fit.")
@click.option("--growth", type=int, default=8, show_default=True, help="Growth of dense blocks.")
@click.option(
    "--width", type=int, default=32, show_default=True, help="Channels of the other networks."
)
@click.option("--coupling", type=click.Choice(["affine", "additive"]), default="affine")
@click.option("--json", "path", type=OUTPUT_FILE, required=True, help="Output file.")
@click.option("--images", type=_PATH, help="Folder for the image of every row.")
def main(case: DegradedCrop, threads: int, path: Path, images: Path | None, **options: Any) -> None:
    """Measure the rows of IKE's ablation; the file is written after every row."""
    settings = IkeSettings(seed=case.seed, **options)

    def keep(report: dict[str, Any]) -> None:
        write_atomically(path, f"{json.dumps(report, indent=2)}\n".encode())
        row = report["rows"][-1]
        note(f"{row['name']}: {row['psnr_y']:.2f} dB")

    def show(name: str, image: NDArray[np.uint8]) -> None:
        if images is not None:
            write_rgb(image, images / f"{name.removeprefix('+ ').replace(' ', '-')}.png")

    measure(AblationPlan(case, threads, settings), keep, show)


if __name__ == "__main__":
    main()
