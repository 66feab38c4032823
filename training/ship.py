"""Copy the weights of a finished run into the package, as float16, with the log of the run.

    python training/ship.py runs/x4-lite x4-lite

If no shipped graph template (docs/adr/0026) fits them, the command that writes one is printed.
Write the card (`ikc_deploy/weights/NAME.md`) from the figures of `ikc-eval` afterwards.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

import ikc_deploy.weights
from ikc_deploy.export.graph_templates import find_template, read_checkpoint
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.checkpoints import load_checkpoint, save_checkpoint
from ikc_deploy.training.run_log import LOG_FILE
from ikc_deploy.training.runs import CHECKPOINT_FILE

FOLDER = Path(ikc_deploy.weights.__file__).parent


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("name")
def main(run: Path, name: str) -> None:
    """Ship the checkpoint of RUN as NAME."""
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
        click.echo(f"no graph template fits; run: python -m tools.graph_template {name}")


if __name__ == "__main__":
    main()
