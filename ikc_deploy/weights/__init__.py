"""Shipped weights: checkpoints inside the package, each with its model card and training log.

Torch-free, so that an embedder with a cached bundle never needs torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ikc_deploy.errors import CheckpointError

DEFAULT_WEIGHTS: Final = "x4-lite"
RANDOM_PREFIX: Final = "random:"


@dataclass(frozen=True)
class WeightsSource:
    """What a weights spec means, before anything is loaded."""

    name: str
    """For labels and folder names."""
    path: Path | None
    """The checkpoint; None for random weights."""
    sha256: str
    """Over the checkpoint file, or over the spec of random weights."""


def shipped_weights() -> dict[str, Path]:
    """The checkpoints inside the package, by name."""
    folder = Path(__file__).parent
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(spec: str) -> WeightsSource:
    """Weights by spec: a shipped name, a checkpoint file, or `random:ARCHITECTURE`.

    Raises `CheckpointError` with the shipped names if `spec` is none of these.
    """
    if spec.startswith(RANDOM_PREFIX):
        name = spec.removeprefix(RANDOM_PREFIX)
        return WeightsSource(f"random-{name}", None, hashlib.sha256(spec.encode()).hexdigest())
    shipped = shipped_weights()
    path = shipped.get(spec, Path(spec))
    if not path.is_file():
        raise CheckpointError(
            f"'{spec}' is neither shipped weights ({', '.join(shipped) or 'none'}), nor a "
            "checkpoint file, nor random:ARCHITECTURE"
        )
    return WeightsSource(path.stem, path, hashlib.sha256(path.read_bytes()).hexdigest())
