"""F of the film design keeps its images of round blur under the codes of another family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from tests.samples import small_architecture
from tools.refit_embedding import refit_embedding

FILM = small_architecture("film")
ELLIPSES = replace(
    FILM, kernels="anisotropic", sigma_range=(0.6, 4.0), code_size=16, levels=0, experts=0
)


def strong(seed: int) -> IkcNetworks:
    """Networks whose image depends visibly on the code."""
    networks = new_networks(FILM, seed)
    for name, parameter in networks.sftmd.named_parameters():
        if "modulation" in name or "conv_output" in name:
            parameter.data.mul_(20 if "modulation" in name else 100)
    return networks


def test_images_of_round_blur_stay() -> None:
    source, target = strong(0), new_networks(ELLIPSES, 1)
    error = refit_embedding(source, target, steps=1000)
    assert error < 0.15
    lr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sigmas = (0.8, 1.5, 2.5, 3.5)
    with torch.no_grad():
        old, new = (
            [
                networks.sftmd(lr, torch.from_numpy(networks.basis.code_of_sigma([sigma])))
                for sigma in sigmas
            ]
            for networks in (source, target)
        )
    change = torch.stack([image - old[0] for image in old[1:]]).abs().mean()
    for before, after in zip(old, new, strict=True):
        assert (before - after).abs().mean() < 0.25 * change


def test_another_design_or_size_is_refused() -> None:
    source = strong(0)
    compact = new_networks(small_architecture("compact"), 0)
    with pytest.raises(CheckpointError, match="film design"):
        refit_embedding(source, compact)
    wide = new_networks(replace(ELLIPSES, channels=2 * ELLIPSES.channels), 0)
    with pytest.raises(CheckpointError, match="same size"):
        refit_embedding(source, wide)
