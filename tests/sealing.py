"""Manifests for what a test has put into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ikc_deploy.bundle.manifest import GRAPHS, MANIFEST_FILE, Manifest, record_files, write_manifest
from ikc_deploy.bundle.measurements import Deviation, GraphParity, Parity

ROUNDING: Final = 5e-4
"""What rounding is said to cost hand-made graphs: about a step of float16 below 1."""

HAND_MADE: Final = Parity(
    {graph: GraphParity(*[Deviation(0.0, ROUNDING, 3.0)] * 2) for graph in GRAPHS}, ()
)
"""For graphs that no network stands behind."""


def seal(folder: Path, manifest: Manifest) -> None:
    """List everything in `folder`, as whoever wrote all of it may."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    write_manifest(folder, manifest, record_files(folder, sorted({*names} - {MANIFEST_FILE})))
