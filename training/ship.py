"""Copy the weights of a finished run into the package, as float16, with the log of the run.

    python training/ship.py runs/x4-lite x4-lite

Write the card (`ikc_deploy/weights/NAME.md`) from the figures of `ikc-eval` afterwards.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

import ikc_deploy.weights
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.checkpoints import load_checkpoint, save_checkpoint
from ikc_deploy.training.runs import CHECKPOINT_FILE, LOG_FILE


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("name")
def main(run: Path, name: str) -> None:
    """Ship the checkpoint of RUN as NAME."""
    folder = Path(ikc_deploy.weights.__file__).parent
    networks = load_checkpoint(run / CHECKPOINT_FILE)
    save_checkpoint(networks, folder / f"{name}.safetensors", torch.float16)
    write_atomically(folder / f"{name}.log.jsonl", (run / LOG_FILE).read_bytes())
    parameters = sum(p.numel() for m in networks.modules().values() for p in m.parameters())
    size = (folder / f"{name}.safetensors").stat().st_size
    click.echo(f"{name}: {parameters} parameters, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
