"""The networks of any loop, rewritten for export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import nn

from ikc_deploy.errors import ExportError
from ikc_deploy.export.dan_rewrites import (
    DeployableDan1Estimator,
    DeployableDan1Restorer,
    DeployableDan2Estimator,
    DeployableDan2Restorer,
)
from ikc_deploy.export.rewrites import (
    DeployableFilmTrunk,
    DeployableReferenceCorrector,
    DeployableReferencePredictor,
    DeployableSftmd,
)
from ikc_deploy.networks.corrector import ReferenceCorrector, StatisticsCorrector
from ikc_deploy.networks.dan import Dan1Estimator, Dan1Restorer, Dan2Estimator, Dan2Restorer
from ikc_deploy.networks.film import FilmTrunk
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.networks.predictor import ReferencePredictor, StatisticsPredictor
from ikc_deploy.networks.sftmd import Sftmd


def _unchanged(network: nn.Module) -> nn.Module:
    return network


_REWRITES: Final[dict[type[nn.Module], Callable[[Any], nn.Module]]] = {
    Sftmd: DeployableSftmd,
    FilmTrunk: DeployableFilmTrunk,
    ReferencePredictor: DeployableReferencePredictor,
    StatisticsPredictor: _unchanged,
    ReferenceCorrector: DeployableReferenceCorrector,
    StatisticsCorrector: _unchanged,
    Dan1Restorer: DeployableDan1Restorer,
    Dan1Estimator: DeployableDan1Estimator,
    Dan2Restorer: DeployableDan2Restorer,
    Dan2Estimator: DeployableDan2Estimator,
}
"""Rewrites by the type of the network."""


def deployable(networks: LoopNetworks) -> dict[str, nn.Module]:
    """Return the rewritten networks by the names of their graphs.

    They may share weights with `networks`. The SR network's image is not clamped.

    Raises:
        ExportError: There is no rewrite for a network.
    """
    return {name: _rewritten(network) for name, network in networks.modules().items()}


def _rewritten(network: nn.Module) -> nn.Module:
    for kind, rewrite in _REWRITES.items():
        if isinstance(network, kind):
            return rewrite(network)
    raise ExportError(f"there is no rewrite for a {type(network).__name__}")
