"""Starting a run from weights that exist: shipped ones or a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.networks.weights import load_weights

_LOG = logging.getLogger(__name__)


def start_from(networks: IkcNetworks, start: str, folder: Path) -> None:
    """Copy every learnt tensor of the weights `start` that has the same name and shape here.

    A tensor that is larger here only because the code has levels (`ikc_deploy.kernels.LEVELS`) and
    theirs has none gets zeros for the levels, so that training starts from the same function.
    Where the kernels' components mean the same, their normalisation comes along: weights that were
    trained behind another one are another function. Charts stay, they belong to the basis.
    `start` is a shipped name or a checkpoint's path relative to `folder`. Raises `CheckpointError`
    if there are none.
    """
    file = folder / start
    source = load_weights(str(file) if file.is_file() else start).networks
    levels = networks.architecture.levels - source.architecture.levels
    copied = total = 0
    for name, module in networks.modules().items():
        theirs = dict(source.modules()[name].named_parameters())
        for key, parameter in module.named_parameters():
            total += 1
            value = (
                _with_zeros(theirs[key].data, parameter.shape, levels) if key in theirs else None
            )
            if value is not None:
                parameter.data.copy_(value)
                copied += 1
    if _same_kernel_components(networks, source):
        _copy_normalization(networks, source)
    _LOG.info("started from '%s': %d of %d tensors fit", start, copied, total)


def _same_kernel_components(ours: IkcNetworks, theirs: IkcNetworks) -> bool:
    own, other = ours.architecture.kernel_components, theirs.architecture.kernel_components
    return np.array_equal(ours.basis.components[:, :own], theirs.basis.components[:, :other])


def _copy_normalization(ours: IkcNetworks, theirs: IkcNetworks) -> None:
    count = theirs.architecture.kernel_components
    for name, module in ours.modules().items():
        sources = dict(theirs.modules()[name].named_modules())
        for key, part in module.named_modules():
            source = sources.get(key)
            if isinstance(part, CodeNormalization) and isinstance(source, CodeNormalization):
                for buffer in ("mean", "deviation"):
                    part.get_buffer(buffer)[:count] = source.get_buffer(buffer)[:count]


def _with_zeros(value: Tensor, shape: torch.Size, levels: int) -> Tensor | None:
    """`value` in the given shape; with `levels` more rows or columns of zeros; None if it differs.

    Layers read the code behind everything else that they read (columns), and the predictor's last
    layer gives the levels behind the spread (rows).
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
