"""The networks of any loop, rewritten for export."""

from __future__ import annotations

from torch import nn

from ikc_deploy.errors import ExportError
from ikc_deploy.export.dan_rewrites import deployable_estimator, deployable_restorer
from ikc_deploy.export.rewrites import (
    deployable_corrector,
    deployable_predictor,
    deployable_sftmd,
)
from ikc_deploy.networks.loop_networks import DanNetworks, IkcNetworks, LoopNetworks


def deployable(networks: LoopNetworks) -> dict[str, nn.Module]:
    """Return the rewritten networks by the names of their graphs; weights may be shared.

    Raises:
        ExportError: There are no rewrites for these networks.
    """
    if isinstance(networks, IkcNetworks):
        return {
            "predictor": deployable_predictor(networks.predictor),
            "sftmd": deployable_sftmd(networks.sftmd),
            "corrector": deployable_corrector(networks.corrector),
        }
    if isinstance(networks, DanNetworks):
        return {
            "restorer": deployable_restorer(networks.restorer),
            "estimator": deployable_estimator(networks.estimator),
        }
    raise ExportError(f"there are no rewrites for networks of the loop '{networks.loop.name}'")
