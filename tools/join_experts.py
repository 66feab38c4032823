"""Join the predictors of several weights as experts of one P (`MixturePredictor`).

    python -m tools.join_experts BASE OUT --clean A --clean B --degraded C --degraded D

F, C, basis and levels are those of BASE; A to D are shipped names or checkpoints. Train the gate by
a recipe whose `init_from` is OUT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import click
import torch

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import Expert, MixturePredictor, SinglePredictor
from ikc_deploy.networks.weights_loader import load_ikc_networks


def join_experts(
    base: IkcNetworks, clean: Sequence[IkcNetworks], degraded: Sequence[IkcNetworks]
) -> IkcNetworks:
    """Return the networks of `base` with a P whose experts are the P of other networks.

    Args:
        base: Networks that keep F, C, basis and training record; their code has levels.
        clean: Networks, of any scale, whose P reads clean images well.
        degraded: As many networks whose P reads noisy and compressed images well.

    Returns:
        Networks whose tensors are copies. The gate is random: train it by the stage `predictor`.

    Raises:
        CheckpointError: The counts differ, or a P is not one estimator of isotropic blur with as
            many channels as the base's.
    """
    if len(clean) != len(degraded):
        raise CheckpointError(
            f"{len(clean)} experts for clean images and {len(degraded)} for degraded ones were "
            "given; give as many of both"
        )
    settings = replace(base.architecture, experts=len(clean))
    joined = new_networks(settings, seed=0, basis=base.basis)
    joined.sftmd.load_state_dict(base.sftmd.state_dict())
    joined.corrector.load_state_dict(base.corrector.state_dict())
    joined.training = base.training
    predictor = cast(MixturePredictor, joined.predictor)
    for expert, networks in zip(predictor.experts, (*clean, *degraded), strict=True):
        _fill(cast(Expert, expert), networks, predictor, settings)
    return joined


def _fill(
    expert: Expert, networks: IkcNetworks, predictor: MixturePredictor, settings: Architecture
) -> None:
    single, theirs = networks.predictor, networks.architecture
    if (
        not isinstance(single, SinglePredictor)
        or theirs.kernels != settings.kernels
        or theirs.estimator_channels != settings.estimator_channels
    ):
        raise CheckpointError(
            f"the P of '{theirs.name}' cannot be an expert: it needs one estimator (experts = 0) "
            f"of {settings.kernels} kernels with {settings.estimator_channels} channels"
        )
    values = single.state_dict()
    with torch.no_grad():
        for key, tensor in expert.state_dict().items():
            # A head that reads levels has rows for them after those of the kernel.
            tensor.copy_(values[key][: len(tensor)])
    predictor.rescale_head(expert.head, theirs, settings)


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
