"""Give weights the trained F of others, which have codes of another family of kernels.

    python training/refit_embedding.py x4-lite x4-aniso OUT

OUT has P, C and basis of the second weights and, for its F, the trunk of the first, which reads the
second's codes. Train F by a recipe whose `init_from` is OUT.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint
from ikc_deploy.networks.weights_loader import load_ikc_networks
from ikc_deploy.training.refit_embedding import refit_embedding


@click.command()
@click.argument("source")
@click.argument("estimators")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
def main(source: str, estimators: str, out: Path) -> None:
    """Write OUT: P and C of ESTIMATORS, and the F of SOURCE."""
    trunk, others = load_ikc_networks(source), load_ikc_networks(estimators)
    of = trunk.architecture
    settings = replace(
        others.architecture, design=of.design, channels=of.channels, blocks=of.blocks
    )
    networks = new_networks(settings, seed=0, basis=others.basis)
    networks.predictor.load_state_dict(others.predictor.state_dict())
    networks.corrector.load_state_dict(others.corrector.state_dict())
    error = refit_embedding(trunk, networks)
    save_checkpoint(networks, out)
    click.echo(f"{out}: error of the embedding {error:.1e} of its variance")


if __name__ == "__main__":
    main()
