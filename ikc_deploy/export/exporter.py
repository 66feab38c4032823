"""From weights to a bundle: graphs, census, parity, manifest, in one atomic step."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnxruntime
import torch

from ikc_deploy.bundle import (
    BASIS_FILE,
    Bundle,
    FrameIO,
    Manifest,
    Precision,
    record_files,
    write_manifest,
)
from ikc_deploy.errors import InputError
from ikc_deploy.export.calibration import (
    Image,
    calibration_images,
    quantize_bundle,
)
from ikc_deploy.export.graphs import OPSET, export_graphs
from ikc_deploy.export.parity import check_parity, measure_parity
from ikc_deploy.export.precision import check_census
from ikc_deploy.files import atomic_folder
from ikc_deploy.locks import locked
from ikc_deploy.measured import Int8Parity
from ikc_deploy.networks.weights import Weights
from ikc_deploy.plans import keep_engines
from ikc_deploy.version import __version__

Announce = Callable[[str], None]
"""Called with the name of each phase as it starts."""


@dataclass(frozen=True)
class ExportSettings:
    """What an export can be asked for."""

    precision: Precision = "fp32"
    io: FrameIO = "uint8"
    calibrate: Path | None = None
    """A folder of HR images to calibrate INT8 on; None for images that are made."""

    def __post_init__(self) -> None:
        if self.calibrate is not None and self.precision != "int8":
            raise InputError("--calibrate is for --int8; the other precisions need no images")


def export_bundle(
    weights: Weights, out: Path, settings: ExportSettings, announce: Announce = lambda _: None
) -> Bundle:
    """Write the bundle `out` (replacing an older one) and return it opened and verified.

    TensorRT engines of the older one are kept if the graphs are the same. Raises `ExportError` if a
    convolution has the wrong precision or the graphs miss the parity limits; then, as after a kill,
    `out` is as it was. INT8 also fails if it costs too much PSNR (see `calibration`).
    """
    networks = weights.networks
    # INT8 graphs are made from float32 ones.
    traced: Precision = "fp16" if settings.precision == "fp16" else "fp32"
    images: list[Image] | None = None
    if settings.precision == "int8":
        # Before the work that a bad folder would waste.
        images = calibration_images(settings.calibrate, networks.architecture.scale)
    with locked(out), atomic_folder(out) as folder:
        announce("graphs")
        paths = export_graphs(networks, folder, traced, settings.io)
        convolutions = {name: check_census(path, traced) for name, path in paths.items()}
        networks.basis.save(folder / BASIS_FILE)
        names = [*(path.name for path in paths.values()), BASIS_FILE, *keep_engines(out, folder)]
        manifest = Manifest(
            name=weights.source.name,
            scale=networks.architecture.scale,
            code_size=networks.architecture.code_size,
            precision=traced,
            io=settings.io,
            basis_id=networks.basis.id,
            weights_sha256=weights.source.sha256,
            random_weights=weights.random,
            opset=OPSET,
            architecture=networks.architecture.to_dict(),
            training=networks.training,
            tools=_tools(),
            convolutions=convolutions,
        )
        write_manifest(folder, manifest, record_files(folder, names))
        quality: Int8Parity | None = None
        if images is not None:
            announce("calibration")
            manifest, quality = quantize_bundle(folder, manifest, images)
        announce("parity")
        written = Bundle.open(folder)
        parity = measure_parity(networks, written, quality)
        check_parity(parity, settings.precision)
        write_manifest(folder, replace(manifest, parity=parity), written.files)
    return Bundle.open(out)


def _tools() -> dict[str, str]:
    return {
        "ikc-deploy": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
