"""One ONNX file for other programs: the unrolled correction loop, or the SR network under one blur.

The graph has one input and one output, RGB `[N,3,H,W]` and `[N,3,sH,sW]` in [0,1], float32 or
float16, of any size. It is composed of a bundle's graphs with io "float". Every pass of a network
uses the same initializers, and a value that several passes compute from the same inputs is computed
once; no arithmetic changes.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import BASIS_FILE, Bundle, Manifest, copy_verified, write_manifest
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.bundle.tolerances import LOOP
from ikc_deploy.errors import ExportError, InputError
from ikc_deploy.export.export_settings import ExportSettings, SingleFileSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.graph_composer import GraphComposer
from ikc_deploy.export.widening import widened
from ikc_deploy.files import check_file, write_atomically
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.networks.weights_loader import Weights
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.backends.backend_names import ONNXRUNTIME
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.version import __version__
from ikc_deploy.weights import find_weights, shipped_weights

SUFFIX: Final = ".onnx"
INPUT: Final = "input"
OUTPUT: Final = "output"

METADATA_PREFIX: Final = "ikc_"
"""Beginning of the keys of the model's metadata."""

_LICENCE: Final = "Apache-2.0"
"""Licence of the shipped weights."""

EXACT_DB: Final = 130.0
"""PSNR in dB that float32 arithmetic reaches at the end of the loop."""

_PROBE_SIDES: Final = (24, 32)
"""Height and width in LR pixels of the image of the parity gate."""


@dataclass(frozen=True)
class SingleFile:
    """A written single file."""

    path: Path
    """The ONNX file."""
    metadata: dict[str, str]
    """Metadata of the model, by key."""
    bytes: int
    """Size of the file."""
    equal: bool
    """Whether its image equals the runtime's bit for bit in ONNX Runtime on this machine."""
    image_db: float
    """PSNR of its image against the runtime's in dB, peak 1; at most 150."""


def check_single_file(path: str | PathLike[str]) -> None:
    """Refuse a path where no single file can be written.

    Args:
        path: The file to write.

    Raises:
        InputError: The name does not end in .onnx.
        OutputError: The file cannot be written.
    """
    if Path(path).suffix.lower() != SUFFIX:
        raise InputError(
            f"invalid name '{path}': other programs recognise ONNX files by the suffix {SUFFIX}"
        )
    check_file(path)


def export_single_file(
    weights: Weights,
    path: Path,
    settings: SingleFileSettings,
    on_progress: Callable[[str], None] = lambda _: None,
) -> SingleFile:
    """Export weights to one ONNX file; an existing file is replaced atomically.

    The graphs pass all checks of a bundle first.

    Args:
        weights: Weights to export; they stay unchanged.
        path: The file to write.
        settings: Precision, and number of corrections or blur.
        on_progress: Called with the name of each phase when it starts.

    Raises:
        InputError: As `check_single_file`.
        KernelError: The blur is outside the range of the weights.
        OutputError: The file cannot be written (before any work).
        ExportError: The graphs, or the file composed of them, exceed the parity limits.
    """
    check_single_file(path)
    if settings.sigma is not None:
        # Before the export, which a wrong sigma would waste.
        weights.networks.basis.code_of_sigma(settings.sigma)
    with tempfile.TemporaryDirectory(prefix="ikc-single-") as folder:
        exported = ExportSettings(settings.precision, "float")
        bundle = export_bundle(weights, Path(folder) / "bundle", exported, on_progress)
        return write_single_file(bundle, path, settings, on_progress)


def write_single_file(
    bundle: Bundle,
    path: Path,
    settings: SingleFileSettings,
    on_progress: Callable[[str], None] = lambda _: None,
) -> SingleFile:
    """Compose the graphs of a bundle to one ONNX file; an existing file is replaced atomically.

    Args:
        bundle: Bundle with io "float".
        path: The file to write.
        settings: Number of corrections or blur, and the precision of the bundle.
        on_progress: Called with the name of each phase when it starts.

    Raises:
        InputError: As `check_single_file`, or the bundle has another precision or io.
        KernelError: The blur is outside the range of the weights.
        OutputError: The file cannot be written.
        ExportError: The file differs from the runtime by more than rounding does.
    """
    check_single_file(path)
    manifest = bundle.manifest
    if (manifest.io, manifest.precision) != ("float", settings.precision):
        raise InputError(
            f"'{bundle.path}' has {manifest.io} frames and {manifest.precision} graphs; a single "
            f"{settings.precision} file needs a bundle with --io float and "
            f"--{settings.precision}, or --weights"
        )
    on_progress("single file")
    model = compose(bundle, settings)
    onnx.checker.check_model(model, full_check=True)
    equal, image_db = _check(model, bundle, settings)
    metadata = _metadata(manifest, settings) | {
        "parity": json.dumps(
            {
                "graphs": manifest.parity and asdict(manifest.parity)["steps"],
                "equal_to_runtime": equal,
                "image_db": round(image_db, 2),
            }
        )
    }
    stored = {METADATA_PREFIX + key: value for key, value in metadata.items()}
    helper.set_model_props(model, stored)
    content = model.SerializeToString(deterministic=True)
    write_atomically(path, content)
    return SingleFile(path, stored, len(content), equal, image_db)


def compose(bundle: Bundle, settings: SingleFileSettings) -> onnx.ModelProto:
    """Return the model of a single file, without metadata.

    Args:
        bundle: Bundle with io "float".
        settings: Number of corrections or blur.

    Raises:
        KernelError: The blur is outside the range of the weights.
        ExportError: The bundle's graphs cannot be composed.
    """
    loop = bundle.loop
    graphs = {name: onnx.load_from_string(bundle.graph_bytes(name)) for name in loop.graphs}
    half = settings.precision == "fp16"
    scale = bundle.manifest.scale
    sizes = {f"sr_{side}": f"{scale}*{side}" for side in ("height", "width")}
    composer = GraphComposer(sizes)
    lr = composer.cast(INPUT, TensorProto.FLOAT) if half else INPUT
    passes: Counter[str] = Counter()

    def run(name: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        label = f"{name}_{passes[name]}"
        passes[name] += 1
        return composer.add(label, graphs[name], **inputs)

    code = _given_code(composer, bundle, graphs, settings.sigma, lr)
    *_, (_, images) = loop.walk(run, lr, code, _corrections(bundle.manifest, settings))
    # The last output is the caller's image, clamped also where the loop's own is not.
    sr = images[loop.outputs(loop.image.name, bundle.manifest.io)[-1]]
    if half:
        sr = composer.cast(sr, TensorProto.FLOAT16)
    composer.rename(sr, OUTPUT)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    opsets = graphs[loop.image.name].opset_import
    return helper.make_model(
        helper.make_graph(
            composer.nodes,
            bundle.manifest.name,
            [helper.make_tensor_value_info(INPUT, kind, ["batch", 3, "height", "width"])],
            [
                helper.make_tensor_value_info(
                    OUTPUT, kind, ["batch", 3, f"{scale}*height", f"{scale}*width"]
                )
            ],
            composer.initializers,
            value_info=[value for name, value in composer.shapes.items() if name != sr],
        ),
        opset_imports=opsets,
        # The oldest that has these operators, for the most readers.
        ir_version=helper.find_min_ir_version_for(list(opsets)),
        producer_name="ikc-deploy",
        producer_version=__version__,
    )


def _corrections(manifest: Manifest, settings: SingleFileSettings) -> int:
    if settings.sigma is not None:
        return 0
    return manifest.recommended_iters if settings.iters is None else settings.iters


def _given_code(
    composer: GraphComposer,
    bundle: Bundle,
    graphs: Mapping[str, onnx.ModelProto],
    sigma: float | None,
    lr: str,
) -> str | None:
    """Return the name of the code of a sigma, or of a loop's constant first code; else None.

    Levels of noise and JPEG are predicted under a given sigma, too.
    """
    basis, start = bundle.basis, bundle.loop.start
    if sigma is None and start is not None:
        return None
    values = basis.delta_code() if sigma is None else basis.code_of_sigma(sigma)
    if start is None or not basis.levels:
        code = composer.constant(np.asarray(values, np.float32)[None])
        # One code for each frame. It depends on the input, so no engine folds layers on it into
        # constants, whose last bits would differ from the runtime's.
        batch = composer.node("Shape", "batch", [lr], start=0, end=1)
        size = composer.constant(np.array([basis.code_size], np.int64))
        shape = composer.node("Concat", "code_shape", [batch, size], axis=0)
        return composer.node("Expand", "known_code", [code, shape])
    # The predicted levels after the given blur. Where would select them in one step, but converters
    # for phones (pnnx) do not know it; multiplied by 0 and 1, all values stay exact.
    is_level = np.arange(basis.code_size) >= basis.code_size - basis.levels
    blur = composer.constant(np.where(is_level, 0, np.asarray(values, np.float32))[None])
    predicted = composer.add(start.name, graphs[start.name], lr=lr)["code"]
    selected = [predicted, composer.constant(is_level.astype(np.float32)[None])]
    levels = composer.node("Mul", "levels", selected)
    return composer.node("Add", "known_code", [levels, blur])


def _check(
    model: onnx.ModelProto, bundle: Bundle, settings: SingleFileSettings
) -> tuple[bool, float]:
    """Return whether the image of a model equals the runtime's, and their PSNR in dB.

    Raises:
        ExportError: They differ by more than the graphs may differ from their networks; or, in
            float16, the same model in float32 arithmetic does, which finds what rounding hides.
    """
    found, wanted = _images(model, bundle, settings)
    parity = bundle.manifest.parity
    if parity is None:
        raise ExportError(f"'{bundle.path}' has no parity record; export it again with ikc-export")
    image_db = psnr(found, wanted)
    _require(image_db, min(step.rounding_db for step in parity.steps))
    if settings.precision == "fp16":
        with tempfile.TemporaryDirectory(prefix="ikc-single-") as folder:
            exact = _widened_bundle(bundle, Path(folder))
            wide = onnx.load_from_string(widened(model.SerializeToString()))
            _require(psnr(*_images(wide, exact, replace(settings, precision="fp32"))), EXACT_DB)
    return bool(np.array_equal(found, wanted)), image_db


def _require(image_db: float, rounding_db: float) -> None:
    if not image_db >= rounding_db - 20 * math.log10(LOOP):
        raise ExportError(
            f"the single file differs from the runtime by more than rounding does: "
            f"{image_db:.1f} dB, but rounding costs {rounding_db:.1f} dB. No file was written"
        )


def _images(
    model: onnx.ModelProto, bundle: Bundle, settings: SingleFileSettings
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the images of a model and of the runtime, of one frame, in the model's dtype."""
    scale, (low, high) = bundle.manifest.scale, bundle.basis.sigma_range
    height, width = _PROBE_SIDES
    hr = structured_image(scale * max(_PROBE_SIDES), 0)[: scale * height, : scale * width]
    frame = degrade_gaussian(hr, (low + high) / 2, scale)
    kind = np.float16 if settings.precision == "fp16" else np.float32
    lr = (np.moveaxis(frame, -1, 0)[None] / 255).astype(kind)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run([OUTPUT], {INPUT: lr})
    iters = _corrections(bundle.manifest, settings)
    with Upscaler(bundle, open_backend(ONNXRUNTIME, bundle), iters) as upscaler:
        image = upscaler(lr.astype(np.float32), sigma=settings.sigma).image
    return found, image.astype(kind)


def _widened_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Write a bundle with the rounded weights of a float16 one and float32 arithmetic."""
    names = [f"{name}.onnx" for name in bundle.loop.graphs]
    for name in names:
        (folder / name).write_bytes(widened(bundle.read(name)))
    copy_verified(bundle, [BASIS_FILE], folder)
    manifest = replace(bundle.manifest, precision="fp32", usrnet=None)
    write_manifest(folder, manifest, record_files(folder, [*names, BASIS_FILE]))
    return Bundle.open(folder)


def _metadata(manifest: Manifest, settings: SingleFileSettings) -> dict[str, str]:
    known: Mapping[str, str] = (
        {"iters": str(_corrections(manifest, settings))}
        if settings.sigma is None
        else {"sigma": str(settings.sigma)}
    )
    shipped = {find_weights(name).sha256 for name in shipped_weights()}
    licence = {"licence": _LICENCE} if manifest.weights_sha256 in shipped else {}
    return {
        "scale": str(manifest.scale),
        "weights": manifest.name,
        "weights_sha256": manifest.weights_sha256,
        "random_weights": str(manifest.random_weights).lower(),
        **known,
        **licence,
        "precision": settings.precision,
        "colour": "RGB, NCHW, values in [0,1]",
        "basis_id": manifest.basis_id,
        "architecture": json.dumps(manifest.architecture),
        "tools": json.dumps(manifest.tools),
    }
