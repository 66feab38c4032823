"""Bundles of what a test has made by hand, and their manifests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx

from ikc_deploy import Bundle, KernelBasis
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import BASIS_FILE, MANIFEST_FILE, Manifest, write_manifest
from ikc_deploy.bundle.measurements import Deviation, GraphParity, Parity
from ikc_deploy.loops import IKC, find_loop

SCALE: Final = 4
BASIS: Final = KernelBasis.fit((0.2, 4.0))

ROUNDING: Final = 5e-4
"""What rounding is said to cost hand-made graphs: about a step of float16 below 1."""

HAND_MADE: Final = Parity(
    {graph: GraphParity(*[Deviation(0.0, ROUNDING, 3.0)] * 2) for graph in IKC.graphs}, ()
)
"""For graphs that no network stands behind."""


def manifest(**changes: Any) -> Manifest:
    """The manifest of hand-made x4 graphs with `BASIS`, in FP32 and for uint8 frames."""
    values: dict[str, Any] = {
        "name": "hand-made",
        "scale": SCALE,
        "code_size": BASIS.code_size,
        "precision": "fp32",
        "io": "uint8",
        "basis_id": BASIS.id,
        "weights_sha256": "",
        "random_weights": False,
        "opset": 18,
        "architecture": {},
        "training": {},
        "tools": {},
        "activation_bytes": dict.fromkeys(find_loop(changes.get("loop", "ikc")).graphs, 1000),
        "parity": HAND_MADE,
    }
    return Manifest(**(values | changes))


def seal(folder: Path, manifest: Manifest) -> None:
    """List everything in `folder`, as the process that wrote all of it may."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    write_manifest(folder, manifest, record_files(folder, sorted({*names} - {MANIFEST_FILE})))


def hand_made_bundle(folder: Path, graphs: Mapping[str, onnx.ModelProto], **changes: Any) -> Bundle:
    """Write graphs with `BASIS` to a new folder, sealed with `manifest(**changes)`."""
    folder.mkdir(parents=True)
    for name, model in graphs.items():
        onnx.save(model, folder / f"{name}.onnx")
    BASIS.save(folder / BASIS_FILE)
    seal(folder, manifest(**changes))
    return Bundle.open(folder)
