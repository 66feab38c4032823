"""The metadata of a checkpoint: architecture, kernel basis and record of the training.

Torch-free, so that a checkpoint can be turned into graphs without torch (`export.graph_templates`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import CheckpointError, KernelError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.architecture import Architecture

FORMAT: Final = "ikc-deploy checkpoint 1"


@dataclass(frozen=True, eq=False)
class CheckpointRecord:
    """Everything in a checkpoint except the weights."""

    architecture: Architecture
    """Settings that determine the shapes of the networks."""
    basis: KernelBasis
    """Kernel basis in which the codes are expressed."""
    training: dict[str, Any]
    """Record of the training."""


def read_record(
    metadata: Mapping[str, str],
    components: NDArray[np.float32],
    mean: NDArray[np.float32],
    source: str,
) -> CheckpointRecord:
    """Return the record of a checkpoint.

    Args:
        metadata: Metadata of the file.
        components: Its tensor `basis.components`.
        mean: Its tensor `basis.mean`.
        source: Path of the file, for error messages.

    Raises:
        CheckpointError: An entry is missing or invalid, or the basis is not the recorded one.
    """
    try:
        architecture = Architecture.from_dict(json.loads(metadata["architecture"]))
        recorded = json.loads(metadata["basis"])
        low, high = recorded["sigma_range"]
        basis = KernelBasis(components, mean, (low, high))
        training = dict(json.loads(metadata["training"]))
        same = basis.id == recorded["id"]
    except (KernelError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"'{source}' is incomplete or was altered: {error}") from error
    if not same:
        raise CheckpointError(
            f"the kernel basis in '{source}' is not the one it was saved with; "
            "the file was altered: download it again"
        )
    return CheckpointRecord(architecture, basis, training)
