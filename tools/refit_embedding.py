"""Give weights the trained F of others, which have codes of another family of kernels.

    python -m tools.refit_embedding x4-lite x4-aniso OUT

OUT has P, C and basis of the second weights. Its F has the trunk of the first weights and a new
embedding, which maps the codes of the second basis. A `FilmTrunk` reads the code only through this
small embedding, so it is fitted in seconds, on codes alone, without images; with a random embedding
instead, training would destroy the trunk. Train F by a recipe whose `init_from` is OUT.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import CheckpointError
from ikc_deploy.kernels import KernelBasis, family_kernels
from ikc_deploy.kernels.ellipse import ellipse_of_kernel
from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint
from ikc_deploy.networks.film import FilmTrunk
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.weights_loader import load_ikc_networks

MAX_KERNELS: Final = 2000
"""Maximum number of kernels of a family that the embedding is fitted to."""

ROUND_KERNELS: Final = 200
"""Number of round kernels, which both families have; they count four times."""

BATCH: Final = 1024
LEARNING_RATE: Final = 3e-3


def refit_embedding(
    source: IkcNetworks, target: IkcNetworks, steps: int = 4000, seed: int = 0
) -> float:
    """Give `target` the F of `source`, whose embedding reads the codes of `target`.

    Afterwards F embeds each code of `target` as the source embeds the round Gaussian of the same
    area: for round blur it returns nearly the source's images, and for ellipses images that are
    good enough to train from. Levels are those of a clean image.

    Args:
        source: Networks of the film design with isotropic codes.
        target: Networks of the film design with an F of the same size; changed in place.
        steps: Number of steps of Adam.
        seed: Seed of the batches.

    Returns:
        Mean squared error of the embedding over its variance.

    Raises:
        CheckpointError: An F is of another design or size.
    """
    trunk, new = source.sftmd, target.sftmd
    if not isinstance(trunk, FilmTrunk) or not isinstance(new, FilmTrunk):
        raise CheckpointError("only an F of the film design has an embedding that can be refitted")
    _copy_trunk(trunk, new)
    kernels, sigmas = _samples(source.basis, target.basis, target)
    codes = torch.from_numpy(target.basis.encode(kernels))
    with torch.no_grad():
        known = torch.from_numpy(source.basis.code_of_sigma(sigmas))
        wanted = trunk.embed(trunk.normalize(known))
    return _fit(new, codes, wanted, steps, seed) / float(wanted.var())


def _copy_trunk(trunk: FilmTrunk, new: FilmTrunk) -> None:
    """Copy everything but what depends on the size and the basis of the code."""
    kept = {
        name: value
        for name, value in trunk.state_dict().items()
        if not name.startswith(("embed.0.", "normalize."))
    }
    state = new.state_dict()
    for name, value in kept.items():
        if name not in state or state[name].shape != value.shape:
            raise CheckpointError(f"both F must have the same size, but their '{name}' differ")
    new.load_state_dict(state | kept)


def _samples(
    old: KernelBasis, new: KernelBasis, target: IkcNetworks
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return kernels `[N,k,k]` of the family, and sigmas `[N]` of round ones of the same area."""
    low, high = max(old.sigma_range[0], new.sigma_range[0]), old.sigma_range[1]
    round_ones = family_kernels("isotropic", (low, min(high, new.sigma_range[1])), new.kernel_size)
    round_ones = np.repeat(round_ones[:: -(-len(round_ones) // ROUND_KERNELS)], 4, axis=0)
    family = family_kernels(target.architecture.kernels, new.sigma_range, new.kernel_size)
    kernels = np.concatenate((round_ones, family[:: -(-len(family) // MAX_KERNELS)]))
    ellipses = map(ellipse_of_kernel, kernels)
    sigmas = [np.sqrt(ellipse.long * ellipse.short) for ellipse in ellipses]
    return kernels, np.clip(sigmas, old.sigma_range[0], high)


def _fit(new: FilmTrunk, codes: Tensor, wanted: Tensor, steps: int, seed: int) -> float:
    """Train the embedding to return `wanted`; return its mean squared error."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(new.embed.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    new.embed.requires_grad_(True)
    for _ in range(steps):
        chosen = torch.randint(len(codes), (BATCH,), generator=generator)
        error = new.embed(new.normalize(codes[chosen])) - wanted[chosen]
        loss = error.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = cast(Tensor, new.embed(new.normalize(codes)))
        return float((found - wanted).square().mean())


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
