"""An engine whose plans are no plans: its record is read, its plans never run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ikc_deploy.bundle.engine_store import EngineRecord, Profile, write_record
from ikc_deploy.bundle.file_records import FileRecord
from ikc_deploy.loops import IKC


def write_placeholder_engine(
    bundle: Path, files: Mapping[str, FileRecord], name: str, **changes: Any
) -> None:
    """Write an engine for the graphs of a bundle of IKC into its folder; the manifest stays.

    Args:
        bundle: Folder of the bundle.
        files: Files of the bundle by name.
        name: Fingerprint of the engine, and name of its folder.
        changes: Entries of the record by name, instead of plausible ones.
    """
    record = EngineRecord(
        fingerprint=name,
        variant="tensorrt-rtx",
        version="1.7.1",
        platform="linux-x86_64",
        compute_capabilities=("8.6", "8.9"),
        profiles=(Profile((1, 64, 64), (1, 256, 256), (1, 540, 960)),),
        workspace_mib=None,
        builder_level=3,
        graphs={graph: files[f"{graph}.onnx"].sha256 for graph in IKC.graphs},
        layer_precision={graph: {"CONVOLUTION": {"HALF": 17}} for graph in IKC.graphs},
    )
    folder = bundle / "engines" / name
    folder.mkdir(parents=True)
    for graph in IKC.graphs:
        (folder / f"{graph}.plan").write_bytes(f"{name} {graph}".encode())
    write_record(folder, replace(record, **changes))
