"""INT8 bundles: calibration on images, measurement on others, float32 where needed.

Half of the images are for calibration; PSNR is measured on the others. While the loss is too large,
more convolutions stay in float32, starting at the ends of the SR network, through which the whole
image passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle, Manifest, record_files, write_manifest
from ikc_deploy.bundle.measurements import Int8Parity
from ikc_deploy.errors import ExportError, InputError
from ikc_deploy.evaluation.datasets import read_hr
from ikc_deploy.export.int8 import Feeds, convolution_weights, quantize_graph
from ikc_deploy.export.precision import conv_precision
from ikc_deploy.imaging.degrade import degrade_gaussian, quantize
from ikc_deploy.imaging.image_io import list_images
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.loops import CODE, DAN, IKC, LR, SR
from ikc_deploy.runtime.backends import open_backend
from ikc_deploy.runtime.frames import frame_shape
from ikc_deploy.runtime.session import Session, run

MAX_LOSS: Final = 0.15
"""Largest loss of PSNR-Y by 8 bits, in dB."""

_ITERS: Final = 1
_SIGMAS: Final = (0.55, 0.75)
"""Positions of the blurs in the sigma range, as shares of it: about those of Gaussian8."""
_MADE: Final = 8
_SIDE: Final = 192
"""Number of synthetic images, and their side in HR pixels, if none are given."""
_MAX_SIDE: Final = 256
"""Largest side of HR images in pixels; calibration needs many values, not all."""

LADDERS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    IKC.name: (
        ("body.conv2.",),
        ("body.conv2.", "body.conv3.", "body.conv_mid.", "body.tail."),
        ("body.conv2.", "body.conv3.", "body.conv_mid.", "body.tail.", ".first."),
    ),
    DAN.name: (
        ("body.first.0.",),
        ("body.first.0.", "body.fusion.", "body.tail."),
        ("body.fusion.", "body.tail.", "body.first."),
    ),
}
"""Convolutions of the SR network that stay in float32, as parts of their names, by loop: the
second, which reads the image's first features and causes most of the loss; both ends; and those
that the code conditions. (The first convolution reads three channels and is never quantised.)"""

Image = NDArray[np.uint8]


def calibration_images(folder: Path | None, scale: int) -> list[Image]:
    """Return HR images for `quantize_bundle`.

    Args:
        folder: Folder of at least two HR images; None for synthetic images.
        scale: SR factor; the sides of the images are multiples of it.

    Returns:
        RGB images `[H,W,3]` uint8.

    Raises:
        InputError: The folder holds fewer than two images, or cannot be read.
    """
    if folder is None:
        return [structured_image(_SIDE - _SIDE % scale, seed) for seed in range(_MADE)]
    images = [read_hr(path, scale) for path in list_images(folder)]
    if len(images) < 2:
        raise InputError(
            f"'{folder}' holds {len(images)} image; --calibrate needs at least two, half for "
            "calibration and half for measurement"
        )
    side = _MAX_SIDE - _MAX_SIDE % scale
    return [image[:side, :side] for image in images]


def quantize_bundle(
    folder: Path, manifest: Manifest, images: Sequence[Image]
) -> tuple[Manifest, Int8Parity]:
    """Convert the float32 bundle in `folder` to INT8, in place.

    Args:
        folder: Folder of a float32 bundle.
        manifest: Manifest of the bundle.
        images: At least two HR images `[H,W,3]` uint8, half of them for the measurement.

    Returns:
        The new manifest, and the measured loss of PSNR.

    Raises:
        ExportError: The loss exceeds `MAX_LOSS` with every set of float32 convolutions in `LADDER`.
    """
    calibrating, measuring = images[::2], images[1::2]
    bundle = Bundle.open(folder)
    feeds = _feeds(bundle, calibrating)
    fp32_db = _psnr(bundle, measuring)
    loop = bundle.loop
    files = [f"{name}.onnx" for name in loop.graphs]
    originals = {name: folder / f".{name}.fp32.onnx" for name in loop.graphs}
    for name, original in originals.items():
        copyfile(bundle.graph(name), original)
    try:
        for kept in LADDERS[loop.name]:
            weights = convolution_weights(originals[loop.image.name])
            names = [weight for weight in weights if any(part in weight for part in kept)]
            for name, original in originals.items():
                copyfile(original, bundle.graph(name))
                quantize_graph(bundle.graph(name), feeds[name], names)
            precisions = {name: conv_precision(bundle.graph(name)) for name in loop.graphs}
            quantized = replace(manifest, precision="int8", convolutions=precisions)
            write_manifest(folder, quantized, {**bundle.files, **record_files(folder, files)})
            int8_db = _psnr(Bundle.open(folder), measuring)
            loss = fp32_db - int8_db
            quality = Int8Parity(fp32_db, int8_db, loss, len(measuring), tuple(names))
            if quality.loss_db <= MAX_LOSS:
                return quantized, quality
    finally:
        for original in originals.values():
            original.unlink()
    raise ExportError(
        f"8 bits cost {quality.loss_db:.2f} dB of PSNR-Y even with the ends and the conditioned "
        f"layers of the SR network in float32; at most {MAX_LOSS:g} dB are allowed. No bundle was "
        "written; pass a folder of images like yours to --calibrate, or export with --fp32"
    )


def _blurred(bundle: Bundle, images: Sequence[Image]) -> Iterator[tuple[Image, Image, float]]:
    """Yield (HR, LR, sigma) for every image; the blurs alternate."""
    low, high = bundle.basis.sigma_range
    for index, hr in enumerate(images):
        sigma = low + _SIGMAS[index % len(_SIGMAS)] * (high - low)
        yield hr, degrade_gaussian(hr, sigma, bundle.manifest.scale), sigma


def _feeds(bundle: Bundle, images: Sequence[Image]) -> dict[str, Feeds]:
    """Return the inputs of the graphs in the loop over these images."""
    loop = bundle.loop
    feeds: dict[str, list[dict[str, NDArray[Any]]]] = {name: [] for name in loop.graphs}
    for _, lr, _ in _blurred(bundle, images):
        frames, srs, codes = _loop(bundle, lr)
        if loop.start is not None:
            feeds[loop.start.name].append({LR: frames})
        for sr, code in zip(srs, codes, strict=True):
            values = {LR: frames, SR: sr, CODE: code}
            for graph in (loop.image, loop.update):
                feeds[graph.name].append({name: values[name] for name in graph.inputs})
    return dict(feeds)


def _psnr(bundle: Bundle, images: Sequence[Image]) -> float:
    """Return the mean PSNR-Y in dB of the last step."""
    scale = bundle.manifest.scale
    found = []
    for hr, lr, _ in _blurred(bundle, images):
        _, srs, _ = _loop(bundle, lr)
        image = quantize(255 * srs[-1][0].transpose(1, 2, 0))
        found.append(psnr_y(image, hr, scale))
    return float(np.mean(found))


def _loop(bundle: Bundle, lr: Image) -> tuple[NDArray[Any], list[NDArray[Any]], list[NDArray[Any]]]:
    """Return the LR image as the input of the graphs, and `sr` and code of every step."""
    frames: NDArray[Any] = lr[None]
    if bundle.manifest.io == "float":
        frames = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32) / 255
    backend = open_backend("onnxruntime", bundle)
    session = Session(backend, bundle, frame_shape(frames, bundle.manifest.io), _ITERS)
    srs: list[NDArray[Any]] = []
    session.upload(frames)
    run(backend, session.blind(), lambda _: srs.append(backend.download(session.sr)))
    codes = [backend.download(code) for code in session.codes]
    backend.close()
    return frames, srs, codes
