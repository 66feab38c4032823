"""Bundles of small networks that several test modules use."""

from __future__ import annotations

from pathlib import Path

from ikc_deploy.bundle import Bundle, FrameIO, Precision
from ikc_deploy.export.exporter import ExportSettings, export_bundle
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint
from ikc_deploy.networks.weights import load_weights
from tests.samples import small_architecture


def save_small(
    folder: Path, design: Design = "compact", scale: int = 4, name: str = "small"
) -> Path:
    """A checkpoint of small untrained networks; the compact ones start close to bicubic."""
    path = folder / f"{name}.safetensors"
    save_checkpoint(new_networks(small_architecture(design, scale), seed=0), path)
    return path


def export_small(
    folder: Path,
    design: Design = "compact",
    scale: int = 4,
    precision: Precision = "fp32",
    io: FrameIO = "uint8",
) -> Bundle:
    """A bundle of such networks."""
    checkpoint = save_small(folder, design, scale)
    out = folder / f"{design}-x{scale}-{precision}-{io}"
    return export_bundle(load_weights(str(checkpoint)), out, ExportSettings(precision, io))
