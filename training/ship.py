"""Copy the weights of a finished run into the package, as float16, with the log of the run.

    python training/ship.py runs/x4-lite x4-lite

Their graph template (docs/adr/0026) is written if no shipped one fits. `--template NAME` writes it
for weights that are shipped already: after a change to the graphs. Write the card
(`ikc_deploy/weights/NAME.md`) from the figures of `ikc-eval` afterwards.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import torch

import ikc_deploy.weights
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.graph_templates import find_template, read_checkpoint
from ikc_deploy.export.template_writer import template_from_bundle
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.checkpoints import load_checkpoint, save_checkpoint
from ikc_deploy.networks.weights_loader import load_weights
from ikc_deploy.training.run_log import LOG_FILE
from ikc_deploy.training.runs import CHECKPOINT_FILE

FOLDER = Path(ikc_deploy.weights.__file__).parent


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True), required=False)
@click.argument("name", required=False)
@click.option("--template", help="Only write the graph template of these shipped weights again.")
def main(run: Path | None, name: str | None, template: str | None) -> None:
    """Ship the checkpoint of RUN as NAME."""
    if template is not None and run is None:
        write_graph_template(template)
        return
    if template is not None or run is None or name is None:
        raise click.UsageError("give RUN and NAME, or only --template NAME")
    weights = FOLDER / f"{name}.safetensors"
    networks = load_checkpoint(run / CHECKPOINT_FILE)
    save_checkpoint(networks, weights, torch.float16)
    write_atomically(FOLDER / f"{name}.log.jsonl", (run / LOG_FILE).read_bytes())
    parameters = sum(p.numel() for m in networks.modules().values() for p in m.parameters())
    size = weights.stat().st_size
    click.echo(f"{name}: {parameters} parameters, {size / 2**20:.1f} MiB")
    checkpoint = read_checkpoint(weights)
    if checkpoint is None:
        raise click.ClickException(f"'{weights}' has tensors that are not float16 to float64")
    if find_template(checkpoint) is None:
        write_graph_template(name)


def write_graph_template(name: str) -> None:
    """Write the graph template of shipped weights from a new export that passes the gate."""
    weights = load_weights(name)
    path = FOLDER / "templates" / f"{name}.zip"
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_bundle(weights, Path(folder) / "bundle", ExportSettings())
        template_from_bundle(weights.networks, bundle, path)
    click.echo(f"{path}: {path.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
