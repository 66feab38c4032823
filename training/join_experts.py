"""Join the predictors of several weights as experts of one P (ikc_deploy/training/experts.py).

    python training/join_experts.py BASE OUT --clean A --clean B --degraded C --degraded D

F, C, basis and levels are those of BASE; A to D are shipped names or checkpoints. Train the gate by
a recipe whose `init_from` is OUT.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from ikc_deploy.networks.checkpoints import save_checkpoint
from ikc_deploy.networks.weights_loader import load_ikc_networks
from ikc_deploy.training.experts import join_experts


@click.command()
@click.argument("base")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--clean", multiple=True, required=True, help="Weights of an expert; repeatable.")
@click.option("--degraded", multiple=True, required=True, help="The same, as many.")
def main(base: str, out: Path, clean: tuple[str, ...], degraded: tuple[str, ...]) -> None:
    """Write OUT: the networks of BASE, with experts."""
    halves = [[load_ikc_networks(name) for name in names] for names in (clean, degraded)]
    save_checkpoint(join_experts(load_ikc_networks(base), *halves), out, torch.float16)
    click.echo(f"{out}: {len(clean)} experts for clean images, {len(degraded)} for degraded ones")


if __name__ == "__main__":
    main()
