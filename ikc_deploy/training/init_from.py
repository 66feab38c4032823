"""Initialisation of a run from existing weights: shipped ones or a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from ikc_deploy.errors import RecipeError
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import untrained_networks
from ikc_deploy.networks.loop_networks import IkcNetworks, LoopNetworks
from ikc_deploy.networks.predictor import StatisticsPredictor
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.networks.weights_loader import load_weights

_LOG = logging.getLogger(__name__)


def started_networks(settings: Architecture, seed: int, start: str, folder: Path) -> LoopNetworks:
    """Return new networks that hold every learnt tensor of the weights `start` that fits.

    A tensor fits if it has the same name and shape, or is larger here only because the new code has
    levels (`ikc_deploy.kernels.LEVELS`) and the old one has none: it is padded with zeros for the
    levels, so training starts from the same function. Weights of another scale fit but for the
    layers that shuffle pixels: most of what a trunk has learnt serves every scale. If both have the
    same family of kernels and number of components, basis and normalisation of the codes are copied
    too: a basis that is fitted again may differ in signs, and the weights are valid only with their
    own basis.

    Args:
        settings: Architecture of the new networks.
        seed: Seed of the tensors that do not fit.
        start: A shipped name, or a checkpoint's path relative to `folder`.
        folder: Folder of the recipe.

    Returns:
        The networks. Tensors that start at random are named in one warning.

    Raises:
        CheckpointError: The weights are unknown or damaged.
        RecipeError: The weights are of another loop, or no tensor of a network fits that estimates
            codes. F or the Restorer may start at random: P and C of the compact and film designs
            fit each other.
    """
    file = folder / start
    source = load_weights(str(file) if file.is_file() else start).networks
    if source.loop is not settings.loop:
        raise RecipeError(
            f"init_from '{start}' holds networks of the loop '{source.loop.name}', but the recipe "
            f"trains those of '{settings.loop.name}'; start from other weights or from none"
        )
    same_codes = _same_codes(settings, source.architecture)
    basis = source.basis.with_levels(settings.levels) if same_codes else None
    networks = untrained_networks(settings, seed, basis)
    random = [
        tensor
        for name in networks.modules()
        for tensor in _copy_network(name, source, networks, start)
    ]
    if random:
        _LOG.warning(
            "init_from '%s' has nothing that fits %s; these tensors start at random",
            start,
            ", ".join(random),
        )
    if isinstance(networks, IkcNetworks) and isinstance(source, IkcNetworks):
        _convert_readings(networks, source)
    if same_codes:
        _copy_normalization(networks, source)
    else:
        _LOG.warning(
            "init_from '%s' has another kernel basis: its networks must learn kernel codes again",
            start,
        )
    return networks


def _copy_network(name: str, source: LoopNetworks, networks: LoopNetworks, start: str) -> list[str]:
    """Copy what fits of one network; return the names of the tensors that stay random."""
    module, known = networks.modules()[name], dict(source.modules()[name].named_parameters())
    levels = networks.architecture.levels - source.architecture.levels
    missing = _copy_fitting(module, known, levels)
    if len(missing) == len(list(module.parameters())) and name != networks.loop.image.name:
        raise RecipeError(
            f"init_from '{start}': no tensor of its {name} fits the recipe's architecture; "
            "start from other weights or from none"
        )
    everything = len(missing) == len(known)
    return [f"all of {name}"] if everything else [f"{name}.{key}" for key in missing]


def _copy_fitting(module: nn.Module, known: dict[str, nn.Parameter], levels: int) -> list[str]:
    """Copy the tensors that fit into `module`; return the names of the other parameters."""
    missing = []
    for key, parameter in module.named_parameters():
        value = _fitted(known[key].data, parameter.shape, levels) if key in known else None
        if value is None:
            missing.append(key)
        else:
            parameter.data.copy_(value)
    return missing


def _same_codes(ours: Architecture, theirs: Architecture) -> bool:
    names = ("kernels", "sigma_range", "kernel_components", "kernel_size")
    return all(getattr(ours, name) == getattr(theirs, name) for name in names)


def _convert_readings(ours: IkcNetworks, theirs: IkcNetworks) -> None:
    """Let P read the same blur in LR pixels as before, at another scale or for another range."""
    new, old = ours.architecture, theirs.architecture
    predictor = ours.predictor
    if (
        isinstance(predictor, StatisticsPredictor)
        and type(predictor) is type(theirs.predictor)
        and new.kernels == old.kernels == "isotropic"
        and (new.scale, new.sigma_range) != (old.scale, old.sigma_range)
    ):
        for head in predictor.heads():
            predictor.rescale_head(head, old, new)


def _copy_normalization(ours: LoopNetworks, theirs: LoopNetworks) -> None:
    count = theirs.architecture.kernel_components
    for name, module in ours.modules().items():
        sources = dict(theirs.modules()[name].named_modules())
        for key, part in module.named_modules():
            source = sources.get(key)
            if isinstance(part, CodeNormalization) and isinstance(source, CodeNormalization):
                for buffer in ("mean", "deviation"):
                    part.get_buffer(buffer)[:count] = source.get_buffer(buffer)[:count]


def _fitted(value: Tensor, shape: torch.Size, levels: int) -> Tensor | None:
    """Return `value` in the given shape, padded by `levels` rows or columns, or None.

    Layers read the code after all their other inputs (columns), and the last layer of the predictor
    returns the levels after the spread (rows).
    """
    if value.shape == shape:
        return value
    for axis in (1, 0):
        grown = list(value.shape)
        if axis >= len(grown) or levels <= 0:
            continue
        grown[axis] += levels
        if torch.Size(grown) == shape:
            padded = value.new_zeros(shape)
            padded.narrow(axis, 0, value.shape[axis]).copy_(value)
            return padded
    return None
