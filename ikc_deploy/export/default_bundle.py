"""Bundles that nobody wrote: shipped weights, exported once into the user's cache."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.errors import BundleError, MissingExtraError
from ikc_deploy.locks import locked
from ikc_deploy.paths import cache_folder
from ikc_deploy.weights import DEFAULT_WEIGHTS, find_weights


def default_bundle(weights: str = DEFAULT_WEIGHTS, precision: Precision = "fp32") -> Bundle:
    """The cached bundle of `weights` in this precision, exported first if there is none.

    The cache key is the weights' checksum, so changed weights are never served from an old
    export; a damaged bundle is made anew. Two processes that start at once export once.
    Raises `MissingExtraError` if an export is needed and torch or onnx is not installed.
    """
    source = find_weights(weights)
    folder = cache_folder() / f"{source.name}-{source.sha256[:12]}-{precision}"
    # Without the lock, so that a cache that cannot be written serves what it has.
    with suppress(BundleError):
        return Bundle.open(folder)
    with locked(folder):
        with suppress(BundleError):
            return Bundle.open(folder)
        # Nobody keeps anything of their own in this cache, and a damaged manifest lists nothing.
        shutil.rmtree(folder, ignore_errors=True)
        return _export(weights, folder, precision)


def _export(weights: str, folder: Path, precision: Precision) -> Bundle:
    try:
        from ikc_deploy.export.exporter import ExportSettings, export_bundle
        from ikc_deploy.networks.weights_loader import load_weights
    except ModuleNotFoundError as error:
        purpose = f"Exporting the weights '{weights}' on first use"
        raise MissingExtraError(error.name or "torch", "export", purpose) from error
    return export_bundle(load_weights(weights), folder, ExportSettings(precision))
