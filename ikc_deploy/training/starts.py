"""Starting a run from weights that exist: shipped ones or a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.networks.weights import load_weights

_LOG = logging.getLogger(__name__)


def start_from(networks: IkcNetworks, start: str, folder: Path) -> None:
    """Copy every learnt tensor of the weights `start` that has the same name and shape here.

    `start` is a shipped name or a checkpoint's path relative to `folder`. Buffers (charts,
    normalisation) stay: they belong to the basis. Raises `CheckpointError` if there are none.
    """
    file = folder / start
    source = load_weights(str(file) if file.is_file() else start).networks
    copied = total = 0
    for name, module in networks.modules().items():
        theirs = dict(source.modules()[name].named_parameters())
        for key, parameter in module.named_parameters():
            total += 1
            if key in theirs and theirs[key].shape == parameter.shape:
                parameter.data.copy_(theirs[key])
                copied += 1
    _LOG.info("started from '%s': %d of %d tensors fit", start, copied, total)
