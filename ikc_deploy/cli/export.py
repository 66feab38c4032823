"""ikc-export: weights to a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click
from rich.table import Table

from ikc_deploy.bundle import Bundle, FrameIO
from ikc_deploy.cli.common import HELP, err_console, out_console, reports_errors
from ikc_deploy.errors import MissingExtraError
from ikc_deploy.weights import DEFAULT_WEIGHTS


@click.command(context_settings=HELP)
@click.option(
    "--weights",
    default=DEFAULT_WEIGHTS,
    show_default=True,
    help="Shipped weights, a checkpoint file, or random:ARCHITECTURE (x2, x3, x4, x4-lite, ...).",
)
@click.option(
    "--fp16/--fp32",
    "half",
    default=False,
    help="Precision of the convolutions; float32 unless --fp16 is given.",
)
@click.option(
    "--io",
    type=click.Choice(["uint8", "float"]),
    default="uint8",
    show_default=True,
    help="Frames as N,H,W,3 uint8, or N,3,H,W float32 in [0,1].",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the bundle.  [default: export/NAME-PRECISION]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest's facts as JSON.")
@reports_errors
def main(weights: str, half: bool, io: FrameIO, out: Path | None, as_json: bool) -> None:
    """Export predictor, SFTMD and corrector as ONNX graphs in a verified bundle."""
    try:
        from ikc_deploy.export.exporter import ExportSettings, export_bundle
        from ikc_deploy.networks.weights import load_weights
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "ikc-export") from error
    precision: Literal["fp16", "fp32"] = "fp16" if half else "fp32"
    loaded = load_weights(weights)
    folder = out or Path("export") / f"{loaded.source.name}-{precision}"
    with err_console.status("loading") as status:
        bundle = export_bundle(
            loaded, folder, ExportSettings(precision, io), lambda phase: status.update(phase)
        )
    if as_json:
        click.echo(json.dumps(_facts(bundle), indent=2))
    else:
        _print(bundle)


def _facts(bundle: Bundle) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "name": manifest.name,
        "scale": manifest.scale,
        "precision": manifest.precision,
        "io": manifest.io,
        "convolutions": manifest.convolutions,
        "parity": manifest.parity,
        "random_weights": manifest.random_weights,
    }


def _print(bundle: Bundle) -> None:
    manifest = bundle.manifest
    graphs = Table(title=f"{manifest.name}, x{manifest.scale}, {manifest.precision}, {manifest.io}")
    for column in ("graph", "convolutions", "MiB"):
        graphs.add_column(column)
    for name, census in manifest.convolutions.items():
        counts = ", ".join(f"{count} {dtype}" for dtype, count in census.items())
        graphs.add_row(name, counts, f"{bundle.graph(name).stat().st_size / 2**20:.1f}")
    parity = Table(title="against torch float32")
    for column in ("step", "image dB", "frame levels", "largest |dh|"):
        parity.add_column(column)
    for step in manifest.parity["steps"]:
        parity.add_row(
            str(step["step"]),
            f"{step['image_db']:.1f}",
            f"{step['frame_levels']:.2f}",
            f"{step['code_error']:.1e}",
        )
    out_console.print(graphs, parity, sep="\n")
    out_console.print(f"bundle: {bundle.path}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
