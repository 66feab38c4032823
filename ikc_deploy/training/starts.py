"""Starting a run from weights that exist: shipped ones or a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ikc_deploy.errors import RecipeError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.networks.weights import load_weights

_LOG = logging.getLogger(__name__)


def start_from(networks: IkcNetworks, start: str, folder: Path) -> list[str]:
    """Copy every learnt tensor of the weights `start` that has the same name and shape here.

    Weights for another family of kernels have other code sizes, so a few of their tensors do not
    fit, and starting from the rest is worth hours. What starts at random is named in one warning.
    Buffers (charts, normalisation) stay: they belong to the basis.

    Args:
        networks: What is about to be trained.
        start: A shipped name, or a checkpoint's path relative to `folder`.
        folder: Where the recipe lies.

    Returns:
        The names of the tensors that start at random, such as "sftmd.conv1.weight".

    Raises:
        CheckpointError: There are no such weights, or they are damaged.
        RecipeError: They are for another scale or design, or nothing of one of the networks fits.
    """
    file = folder / start
    source = load_weights(str(file) if file.is_file() else start).networks
    ours, theirs = networks.architecture, source.architecture
    for name in ("scale", "design"):
        if getattr(ours, name) != getattr(theirs, name):
            raise RecipeError(
                f"start '{start}' has {name} {getattr(theirs, name)}, and the recipe's "
                f"architecture has {getattr(ours, name)}; start from other weights or from none"
            )
    random: list[str] = []
    for name, module in networks.modules().items():
        known = dict(source.modules()[name].named_parameters())
        learnt = dict(module.named_parameters())
        fitting = {k for k, v in learnt.items() if k in known and known[k].shape == v.shape}
        if not fitting:
            raise RecipeError(
                f"start '{start}': no tensor of its {name} fits the recipe's architecture; start "
                "from other weights or from none"
            )
        for key in fitting:
            learnt[key].data.copy_(known[key])
        random += [f"{name}.{key}" for key in learnt if key not in fitting]
    if random:
        _LOG.warning("start '%s' has no fit for %s: they start at random", start, ", ".join(random))
    if not _means_the_same(source.basis, networks.basis):
        _LOG.warning(
            "start '%s' has another kernel basis: what its networks know of kernel codes is lost",
            start,
        )
    return random


def _means_the_same(one: KernelBasis, other: KernelBasis) -> bool:
    """Whether codes of both bases are equal but for the rounding of the machines that fitted them.

    Rounding turns the last directions, which hold the least variance, by up to 1e-6.
    """
    if one.components.shape != other.components.shape:
        return False
    return np.allclose(one.components, other.components, rtol=0, atol=1e-3)
