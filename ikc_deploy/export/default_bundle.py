"""Bundles in the user's cache, which are created on first use."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.errors import BundleError, needs_extra
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.graph_templates import (
    bundle_from_template,
    find_template,
    read_checkpoint,
)
from ikc_deploy.locks import locked
from ikc_deploy.paths import cache_folder
from ikc_deploy.version import __version__
from ikc_deploy.weights import DEFAULT_WEIGHTS, WeightsSource, find_weights


def default_bundle(weights: str = DEFAULT_WEIGHTS, precision: Precision = "fp32") -> Bundle:
    """Return the cached bundle of `weights`; create it if there is none.

    Float32 bundles are created without torch if a graph template for the architecture is shipped,
    as it is for all shipped weights. Others are exported.

    The cache key contains the checksum of the weights and the version of this package, so neither
    changed weights nor a new version use an old bundle. A damaged bundle is created again. If
    several processes start at the same time, only one of them creates the bundle.

    Args:
        weights: Weights spec (see `ikc_deploy.weights.find_weights`).
        precision: Precision of the graphs.

    Raises:
        CheckpointError: The weights are unknown or damaged.
        MissingExtraError: The weights must be exported, and torch or onnx is not installed.
    """
    source = find_weights(weights)
    folder = cache_folder() / f"{source.name}-{source.sha256[:12]}-{__version__}-{precision}"
    # First without the lock, so that a read-only cache can be used.
    with suppress(BundleError):
        return Bundle.open(folder)
    with locked(folder):
        with suppress(BundleError):
            return Bundle.open(folder)
        # Removed unconditionally: a damaged manifest does not list its files.
        shutil.rmtree(folder, ignore_errors=True)
        return _make(weights, source, folder, precision)


def _make(weights: str, source: WeightsSource, folder: Path, precision: Precision) -> Bundle:
    if precision == "fp32" and source.path is not None:
        checkpoint = read_checkpoint(source.path)
        template = find_template(checkpoint) if checkpoint else None
        if checkpoint and template:
            return bundle_from_template(template, checkpoint, source, folder)
    return _export(weights, folder, precision)


def _export(weights: str, folder: Path, precision: Precision) -> Bundle:
    with needs_extra("export", f"Exporting the weights '{weights}' in {precision} on first use"):
        from ikc_deploy.export.exporter import export_bundle
        from ikc_deploy.networks.weights_loader import load_weights
    return export_bundle(load_weights(weights), folder, ExportSettings(precision))
