"""Shipped weights: checkpoints inside the package, each with its model card and training log.

The templates of their graphs (`ikc_deploy.export.graph_templates`) are beside them, so that neither
this module nor the use of the weights needs torch.
"""

from ikc_deploy.weights.weights_source import (
    DEFAULT_WEIGHTS,
    RANDOM_PREFIX,
    WeightsSource,
    find_weights,
    is_shipped_name,
    shipped_templates,
    shipped_weights,
)

__all__ = [
    "DEFAULT_WEIGHTS",
    "RANDOM_PREFIX",
    "WeightsSource",
    "find_weights",
    "is_shipped_name",
    "shipped_templates",
    "shipped_weights",
]
