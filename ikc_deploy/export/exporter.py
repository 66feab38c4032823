"""Export of weights to a bundle: graphs, precision check, parity gate and manifest."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import torch

from ikc_deploy.bundle.bundle_writer import check_bundle_folder, new_bundle
from ikc_deploy.bundle.engine_store import copy_engines, engine_files
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import (
    BASIS_FILE,
    MANIFEST_FILE,
    USRNET,
    Bundle,
    FrameIO,
    Manifest,
    Precision,
    copy_verified,
    write_manifest,
)
from ikc_deploy.bundle.measurements import Int8Parity
from ikc_deploy.errors import BundleError
from ikc_deploy.export.activations import activation_bytes
from ikc_deploy.export.calibration import (
    Image,
    calibration_images,
    quantize_bundle,
)
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.graphs import OPSET, export_graphs
from ikc_deploy.export.parity import check_parity, measure_parity
from ikc_deploy.export.precision import check_precision
from ikc_deploy.networks.weights_loader import Weights
from ikc_deploy.version import __version__

ExportProgress = Callable[[str], None]
"""Callback with the name of each phase when it starts."""


def export_bundle(
    weights: Weights,
    out: Path,
    settings: ExportSettings,
    on_progress: ExportProgress = lambda _: None,
) -> Bundle:
    """Export weights to the bundle `out`, which may replace an older one.

    TensorRT engines of the older bundle are kept if the graphs are the same, and its USRNet graph
    if scale, io and precision are the same; a warning lists what is not kept. If the export fails
    or the process is killed, `out` is unchanged.

    Args:
        weights: Weights to export; they are not modified.
        out: Folder of the bundle.
        settings: Precision, layout of frames and calibration images.
        on_progress: Called with the name of each phase when it starts.

    Returns:
        The verified bundle.

    Raises:
        OutputError: `out` exists and is not a bundle, or it cannot be written (checked first).
        InputError: The calibration images are unusable.
        ExportError: A convolution has the wrong precision, the graphs exceed the parity limits, or
            INT8 loses too much PSNR (see `calibration`).
    """
    check_bundle_folder(out)
    networks = weights.networks
    # INT8 graphs are made from float32 ones.
    traced: Precision = "fp16" if settings.precision == "fp16" else "fp32"
    images: list[Image] | None = None
    if settings.precision == "int8":
        # Checked before the export, which takes longer.
        images = calibration_images(settings.calibrate, networks.architecture.scale)
    with new_bundle(out) as folder:
        on_progress("graphs")
        manifest = _write_graphs(weights, folder, traced, settings.io)
        quality: Int8Parity | None = None
        if images is not None:
            on_progress("calibration")
            manifest, quality = quantize_bundle(folder, manifest, images)
        on_progress("parity")
        written = Bundle.open(folder)
        parity = measure_parity(networks, written, quality)
        check_parity(parity, settings.precision)
        manifest, kept = _keep(out, folder, replace(manifest, parity=parity))
        write_manifest(folder, manifest, {**written.files, **record_files(folder, kept)})
    return Bundle.open(out)


def _write_graphs(weights: Weights, folder: Path, precision: Precision, io: FrameIO) -> Manifest:
    """Write graphs, basis and manifest; return the manifest, without measurements."""
    networks = weights.networks
    paths = export_graphs(networks, folder, precision, io)
    networks.basis.save(folder / BASIS_FILE)
    manifest = Manifest(
        name=weights.source.name,
        scale=networks.architecture.scale,
        loop=networks.loop.name,
        code_size=networks.architecture.code_size,
        precision=precision,
        io=io,
        basis_id=networks.basis.id,
        weights_sha256=weights.source.sha256,
        random_weights=weights.random,
        opset=OPSET,
        architecture=networks.architecture.to_dict(),
        training=networks.training,
        tools=_tools(),
        activation_bytes={
            name: activation_bytes(path, networks.architecture.scale)
            for name, path in paths.items()
        },
        recommended_iters=networks.training.get("recommended_iters", networks.loop.iters),
        convolutions={name: check_precision(path, precision) for name, path in paths.items()},
    )
    names = [*(path.name for path in paths.values()), BASIS_FILE]
    write_manifest(folder, manifest, record_files(folder, names))
    return manifest


def _keep(out: Path, folder: Path, manifest: Manifest) -> tuple[Manifest, list[str]]:
    """Copy the engines and the USRNet graph of the old bundle `out` to `folder`, if they still fit.

    Return the manifest that includes them, and the copied files by their path in the bundle.
    """
    if not (out / MANIFEST_FILE).exists():
        return manifest, []
    try:
        old = Bundle.open(out)
        kept, left = copy_engines(old, folder)
    except BundleError as error:
        warnings.warn(f"nothing of the old bundle is kept: {error}", stacklevel=3)
        return manifest, []
    files = [name for engine in sorted(kept) for name in engine_files(engine, old.loop)]
    if left:
        warnings.warn(
            f"engines of the old bundle in '{out}' are for other graphs and are not kept: "
            f"{', '.join(sorted(left))}; build new ones with --engine",
            stacklevel=3,
        )
    verified = {name: found for name, found in old.manifest.verified.items() if name in kept}
    manifest = replace(manifest, verified=verified)
    usrnet = old.manifest.usrnet
    if usrnet is None:
        return manifest, files
    precision = "fp16" if manifest.precision == "fp16" else "fp32"
    there = (old.manifest.scale, old.manifest.io, usrnet.precision)
    if there != (manifest.scale, manifest.io, precision):
        warnings.warn(
            f"the {USRNET} graph of the old bundle in '{out}' is for x{there[0]}, {there[1]} "
            f"frames and {there[2]}, and is not kept; add a new one with --usrnet",
            stacklevel=3,
        )
        return manifest, files
    name = old.graph(USRNET).name
    copy_verified(old, [name], folder)
    return replace(manifest, usrnet=usrnet), [*files, name]


def _tools() -> dict[str, str]:
    return {
        "ikc-deploy": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
