"""Experts of a P (`ikc_deploy.networks.predictor.MixturePredictor`) from networks trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import Expert, MixturePredictor, SinglePredictor


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
