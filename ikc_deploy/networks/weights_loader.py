"""Loading of networks by weights spec: shipped ones, a checkpoint file, or random ones."""

from __future__ import annotations

from dataclasses import dataclass

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.checkpoints import load_checkpoint, random_networks
from ikc_deploy.networks.loop_networks import IkcNetworks, LoopNetworks
from ikc_deploy.weights import RANDOM_PREFIX, WeightsSource, find_weights


@dataclass(frozen=True, eq=False)
class Weights:
    """Loaded networks and their source."""

    source: WeightsSource
    """File and checksum of the weights."""
    networks: LoopNetworks
    """Networks in evaluation mode, on the CPU."""

    @property
    def random(self) -> bool:
        """Whether the weights are random: fit for benchmarks, useless for images."""
        return self.source.path is None


def load_weights(spec: str) -> Weights:
    """Load weights.

    Args:
        spec: A shipped name, a checkpoint file or `random:` and an architecture (see
            `ikc_deploy.weights.find_weights`).

    Raises:
        CheckpointError: The weights are unknown, or the file is damaged or does not fit.
    """
    source = find_weights(spec)
    if source.path is None:
        return Weights(source, random_networks(spec.removeprefix(RANDOM_PREFIX)))
    return Weights(source, load_checkpoint(source.path))


def load_ikc_networks(spec: str) -> IkcNetworks:
    """Load the networks of weights of IKC.

    Args:
        spec: As in `load_weights`.

    Raises:
        CheckpointError: As in `load_weights`, or the weights are of another method.
    """
    networks = load_weights(spec).networks
    if not isinstance(networks, IkcNetworks):
        raise CheckpointError(
            f"'{spec}' holds networks of {networks.loop.name}, where those of IKC are needed"
        )
    return networks
