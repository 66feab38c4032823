"""Where weights are: names of shipped ones, files of checkpoints, and random ones."""

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
    """The resolved source of weights, before anything is loaded."""

    name: str
    """Name for labels and folders."""
    path: Path | None
    """Checkpoint file; None for random weights."""
    sha256: str
    """SHA-256 (hex) of the checkpoint file, or of the spec of random weights."""


def shipped_weights() -> dict[str, Path]:
    """Return the paths of the checkpoints inside the package, by name."""
    folder = Path(__file__).parent
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def is_shipped_name(name: str) -> bool:
    """Return whether a name is one of shipped weights, and no file or folder has it."""
    return name in shipped_weights() and not Path(name).exists()


def shipped_templates() -> dict[str, Path]:
    """Return the paths of the graph templates inside the package, by the name of their weights."""
    folder = Path(__file__).parent / "templates"
    return {path.stem: path for path in sorted(folder.glob("*.zip"))}


def find_weights(spec: str) -> WeightsSource:
    """Find weights by their spec.

    Args:
        spec: Name of shipped weights, path of a checkpoint file, or `random:ARCHITECTURE`.

    Raises:
        CheckpointError: `spec` is none of these; the message lists the shipped names.
    """
    if spec.startswith(RANDOM_PREFIX):
        name = spec.removeprefix(RANDOM_PREFIX)
        return WeightsSource(f"random-{name}", None, hashlib.sha256(spec.encode()).hexdigest())
    shipped = shipped_weights()
    path = shipped.get(spec, Path(spec))
    if not path.is_file():
        raise CheckpointError(
            f"unknown weights '{spec}': expected shipped weights "
            f"({', '.join(shipped) or 'none'}), a checkpoint file, or random:ARCHITECTURE"
        )
    return WeightsSource(path.stem, path, hashlib.sha256(path.read_bytes()).hexdigest())
