"""Offline methods beside IKC and bicubic on one degraded crop: figures for docs/offline.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.benchmarks.offline_table import Plan, measure
from ikc_deploy.cli.common import HELP, err_console, reports_errors
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import DEGRADATIONS
from ikc_deploy.files import write_atomically
from ikc_deploy.images import write_rgb
from ikc_deploy.offline.methods import METHODS

_PATH = click.Path(path_type=Path)


@click.command(context_settings=HELP)
@click.option("--image", type=_PATH, default="samples/kodim23.png", show_default=True, help="HR.")
@click.option("--top", type=int, default=120, show_default=True, help="Of the HR crop.")
@click.option("--left", type=int, default=420, show_default=True)
@click.option("--side", type=int, default=128, show_default=True)
@click.option("--degradation", type=click.Choice(DEGRADATIONS), required=True)
@click.option(
    "--method",
    "named",
    multiple=True,
    metavar="NAME[:SETTING=NUMBER,...]",
    help="Offline methods, and settings of theirs (repeatable).  [default: all, as they are]",
)
@click.option("--scale", type=int, default=2, show_default=True)
@click.option("--weights", default="x2-lite", show_default=True, help="Of IKC.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="CPU cores to use.")
@click.option("--json", "path", type=_PATH, required=True, help="The figures.")
@click.option("--images", type=_PATH, help="Folder for the pictures.")
@reports_errors
def main(named: tuple[str, ...], path: Path, images: Path | None, **options: Any) -> None:
    """Measure; the file is written after every method, and what it has is not measured again."""
    plan = Plan(methods=dict(map(_method, named or METHODS)), **options)

    def keep(report: dict[str, Any]) -> None:
        write_atomically(path, f"{json.dumps(report, indent=2)}\n".encode())
        row = report["rows"][-1]
        err_console.print(f"{row['method']}: {row['psnr_y']:.2f} dB, {row['seconds']:.0f} s")

    def show(name: str, image: NDArray[np.uint8]) -> None:
        if images is not None:
            write_rgb(image, images / f"{name}.png")

    measure(plan, keep, show, json.loads(path.read_text()) if path.exists() else None)


def _method(text: str) -> tuple[str, dict[str, float]]:
    name, _, settings = text.partition(":")
    if name not in METHODS:
        raise InputError(f"there is no method '{name}'; there are {', '.join(METHODS)}")
    pairs = (pair.partition("=") for pair in settings.split(",") if pair)
    try:
        return name, {key: int(v) if v.isdigit() else float(v) for key, _, v in pairs}
    except ValueError:
        raise InputError(f"--method takes NAME:SETTING=NUMBER,..., got '{text}'") from None


if __name__ == "__main__":
    main()
