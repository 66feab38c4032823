"""Networks by weights spec: shipped ones, a checkpoint file, or seeded random ones."""

from __future__ import annotations

from dataclasses import dataclass

from ikc_deploy.networks.checkpoints import IkcNetworks, load_checkpoint, random_networks
from ikc_deploy.weights import RANDOM_PREFIX, WeightsSource, find_weights


@dataclass(frozen=True, eq=False)
class Weights:
    """Loaded networks and where they came from."""

    source: WeightsSource
    networks: IkcNetworks

    @property
    def random(self) -> bool:
        """True for seeded random weights: fit for benches, useless for pictures."""
        return self.source.path is None


def load_weights(spec: str) -> Weights:
    """Load the weights that `spec` means (see `ikc_deploy.weights.find_weights`).

    Raises `CheckpointError` if there are none, or if the file is damaged or does not fit.
    """
    source = find_weights(spec)
    if source.path is None:
        return Weights(source, random_networks(spec.removeprefix(RANDOM_PREFIX)))
    return Weights(source, load_checkpoint(source.path))
