"""Compare offline methods with IKC and bicubic on one degraded crop, for docs/offline.md."""

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
from ikc_deploy.errors import InputError
from ikc_deploy.files import write_atomically
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.offline.methods import METHODS
from tools._crop_options import degraded_crop_options
from tools.measuring.degraded_crop import DegradedCrop
from tools.measuring.offline_table import OfflineTablePlan, measure

_PATH = click.Path(path_type=Path)


@click.command(context_settings=HELP)
@reports_errors
@degraded_crop_options(side=128)
@click.option(
    "--method",
    "named",
    multiple=True,
    metavar="NAME[:SETTING=NUMBER,...]",
    help="Offline method and its settings (repeatable).  [default: all, default settings]",
)
@click.option("--weights", default="x2-lite", show_default=True, help="Weights of IKC.")
@click.option("--threads", type=int, default=1, show_default=True, help="CPU cores to use.")
@click.option("--json", "path", type=OUTPUT_FILE, required=True, help="Output file.")
@click.option("--images", type=_PATH, help="Folder for the images.")
def main(
    case: DegradedCrop,
    named: tuple[str, ...],
    weights: str,
    threads: int,
    path: Path,
    images: Path | None,
) -> None:
    """Measure the methods; the file is written after each, and finished ones are not repeated."""
    plan = OfflineTablePlan(case, dict(map(_method, named or METHODS)), weights, threads)

    def keep(report: dict[str, Any]) -> None:
        write_atomically(path, f"{json.dumps(report, indent=2)}\n".encode())
        row = report["rows"][-1]
        note(f"{row['method']}: {row['psnr_y']:.2f} dB, {row['seconds']:.0f} s")

    def show(name: str, image: NDArray[np.uint8]) -> None:
        if images is not None:
            write_rgb(image, images / f"{name}.png")

    measure(plan, keep, show, _earlier(path))


def _earlier(path: Path) -> dict[str, Any] | None:
    """Return the report in the file; None if there is no file."""
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text())
        if {"machine", "plan", "rows"} <= report.keys():
            return dict(report)
    except (ValueError, AttributeError):
        pass
    raise InputError(f"--json '{path}' is not a report of this command; give another file")


def _method(text: str) -> tuple[str, dict[str, float]]:
    name, _, settings = text.partition(":")
    if name not in METHODS:
        raise InputError(f"unknown method '{name}': expected one of {', '.join(METHODS)}")
    pairs = (pair.partition("=") for pair in settings.split(",") if pair)
    try:
        return name, {key: int(v) if v.isdigit() else float(v) for key, _, v in pairs}
    except ValueError:
        raise InputError(f"invalid --method '{text}': expected NAME:SETTING=NUMBER,...") from None


if __name__ == "__main__":
    main()
