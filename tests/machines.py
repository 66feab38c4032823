"""Other machines, as far as ikc-deploy looks at one: what nvidia-smi answers."""

from __future__ import annotations

from pathlib import Path


def nvidia_smi(folder: Path, body: str) -> str:
    """A command that answers like nvidia-smi by running this shell script."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)
