"""INT8 bundles: calibration on images, measurement on others, float32 where needed.

Half of the images are for calibration; PSNR is measured on the others, blind and with the true
kernel. Each image is compared with itself in float32, and the median and the largest loss decide:
in a mean, one image whose blur 8 bits estimate better by chance hides the losses of the others.
While a loss is too large, more convolutions stay in float32, starting at the ends of the SR
network, through which the whole image passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import Bundle, Manifest, write_manifest
from ikc_deploy.bundle.measurements import Int8Loss, Int8Parity
from ikc_deploy.errors import ExportError, InputError
from ikc_deploy.evaluation.datasets import read_hr
from ikc_deploy.export.int8 import Feeds, convolution_weights, quantize_graph
from ikc_deploy.export.precision import conv_precision
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.resize import quantize
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.loops import CODE, DAN, IKC, LR, SR
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.executor import NetworkExecutor
from ikc_deploy.runtime.frames import frame_shape

MAX_MEDIAN_LOSS: Final = 0.1
"""Largest median loss of PSNR-Y by 8 bits, in dB, blind and with the true kernel."""
MAX_WORST_LOSS: Final = 0.5
"""Largest loss of PSNR-Y of a single image by 8 bits, in dB, blind and with the true kernel."""

_ITERS: Final = 1
_SIGMAS: Final = (0.55, 0.75)
"""Positions of the blurs in the sigma range, as shares of it: about those of Gaussian8."""
_MADE: Final = 8
_SIDE: Final = 192
"""Number of synthetic images, and their side in HR pixels, if none are given."""
_MAX_SIDE: Final = 256
"""Largest side of HR images in pixels; calibration needs many values, not all."""

_EXPERTS: Final = "experts."
"""Convolutions of the experts of P: they cost little, and eight bits shift the blur they read."""

_FILM_START: Final = tuple(f"body.convs.{number}." for number in range(8))
"""Convolutions of the first four blocks of a FiLM trunk."""

_ENDS: Final = ("body.conv2.", "body.conv3.", "body.conv_mid.", "body.tail.")
"""Convolutions at both ends of F."""

LADDERS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    IKC.name: (
        (_EXPERTS, "body.conv2.", *_FILM_START[:4]),
        (_EXPERTS, *_ENDS, *_FILM_START[:4]),
        (_EXPERTS, *_ENDS, ".first.", *_FILM_START),
    ),
    DAN.name: (
        ("body.first.0.",),
        ("body.first.0.", "body.fusion.", "body.tail."),
        ("body.fusion.", "body.tail.", "body.first."),
    ),
}
"""Convolutions that stay in float32, as parts of their names, by loop: those of the SR network that
read the image's first features and cause most of the loss; both ends; and more of those that the
code conditions. A design has only some of these names. (The first convolution reads three channels
and is never quantised.)"""

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
        ExportError: A loss exceeds `MAX_MEDIAN_LOSS` or `MAX_WORST_LOSS` with every set of float32
            convolutions in `LADDERS`.
    """
    calibrating, measuring = images[::2], images[1::2]
    bundle = Bundle.open(folder)
    feeds = _feeds(bundle, calibrating)
    reference = _measured(bundle, measuring)
    loop = bundle.loop
    files = [f"{name}.onnx" for name in loop.graphs]
    originals = {name: folder / f".{name}.fp32.onnx" for name in loop.graphs}
    for name, original in originals.items():
        copyfile(bundle.graph(name), original)
    weights = [weight for path in originals.values() for weight in convolution_weights(path)]
    try:
        for kept in LADDERS[loop.name]:
            names = [weight for weight in weights if any(part in weight for part in kept)]
            for name, original in originals.items():
                copyfile(original, bundle.graph(name))
                quantize_graph(bundle.graph(name), feeds[name], names)
            precisions = {name: conv_precision(bundle.graph(name)) for name in loop.graphs}
            quantized = replace(manifest, precision="int8", convolutions=precisions)
            write_manifest(folder, quantized, {**bundle.files, **record_files(folder, files)})
            quality = _compared(reference, _measured(Bundle.open(folder), measuring), names)
            if _allowed(quality.blind) and _allowed(quality.true_kernel):
                return quantized, quality
    finally:
        for original in originals.values():
            original.unlink()
    raise ExportError(
        f"8 bits cost {_text(quality.blind)} blind and {_text(quality.true_kernel)} with the true "
        "kernel, even with the ends and the conditioned layers of the SR network in float32; at "
        f"most {MAX_MEDIAN_LOSS:g} (median) and {MAX_WORST_LOSS:g} dB (worst image) are allowed. "
        "No bundle was written; pass a folder of images like yours to --calibrate, or export with "
        "--fp32"
    )


@dataclass(frozen=True)
class _Measured:
    """PSNR-Y in dB of every image."""

    blind: NDArray[np.float64]
    true_kernel: NDArray[np.float64]


def _compared(reference: _Measured, found: _Measured, kept: Sequence[str]) -> Int8Parity:
    return Int8Parity(
        fp32_db=float(reference.blind.mean()),
        int8_db=float(found.blind.mean()),
        blind=_loss(reference.blind - found.blind),
        true_kernel=_loss(reference.true_kernel - found.true_kernel),
        images=len(found.blind),
        kept=tuple(kept),
    )


def _loss(losses: NDArray[np.float64]) -> Int8Loss:
    return Int8Loss(float(np.median(losses)), float(losses.max()))


def _allowed(loss: Int8Loss) -> bool:
    return loss.median_db <= MAX_MEDIAN_LOSS and loss.worst_db <= MAX_WORST_LOSS


def _text(loss: Int8Loss) -> str:
    return f"{loss.median_db:.2f} dB of PSNR-Y ({loss.worst_db:.2f} dB on the worst image)"


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
    with closing(_OpenLoop(bundle)) as opened:
        for _, lr, _ in _blurred(bundle, images):
            frames, srs, codes = opened.run(lr)
            if loop.start is not None:
                feeds[loop.start.name].append({LR: frames})
            for sr, code in zip(srs, codes, strict=True):
                values = {LR: frames, SR: sr, CODE: code}
                for graph in (loop.image, loop.update):
                    feeds[graph.name].append({name: values[name] for name in graph.inputs})
    return dict(feeds)


def _measured(bundle: Bundle, images: Sequence[Image]) -> _Measured:
    """Return the PSNR-Y of every image at the last step, blind and with the true kernel."""
    blind, known = [], []
    with closing(_OpenLoop(bundle)) as opened:
        for hr, lr, sigma in _blurred(bundle, images):
            _, srs, _ = opened.run(lr)
            blind.append(_psnr(srs[-1], hr, bundle.manifest.scale))
            _, srs, _ = opened.run(lr, bundle.basis.code_of_sigma(sigma))
            known.append(_psnr(srs[-1], hr, bundle.manifest.scale))
    return _Measured(np.array(blind), np.array(known))


def _psnr(sr: NDArray[Any], hr: Image, scale: int) -> float:
    return psnr_y(quantize(255 * sr[0].transpose(1, 2, 0)), hr, scale)


class _OpenLoop:
    """The loop of a bundle, whose networks are opened once for all images."""

    def __init__(self, bundle: Bundle) -> None:
        self._io = bundle.manifest.io
        self._backend = open_backend("onnxruntime", bundle)
        self._executor = NetworkExecutor(self._backend, bundle, _ITERS)

    def run(
        self, lr: Image, code: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[Any], list[NDArray[Any]], list[NDArray[Any]]]:
        """Return the LR image as the input of the graphs, and `sr` and code of every step.

        With the `code` of a known kernel there is one step.
        """
        frames: NDArray[Any] = lr[None]
        if self._io == "float":
            frames = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32) / 255
        session = self._executor.session(frame_shape(frames, self._io))
        srs: list[NDArray[Any]] = []
        session.upload(frames, None if code is None else code.reshape(1, -1))
        sequence = session.blind() if code is None else session.image(0)
        self._executor.run(sequence, lambda _: srs.append(self._backend.download(session.sr)))
        codes = session.codes if code is None else session.codes[:1]
        return frames, srs, [self._backend.download(each) for each in codes]

    def close(self) -> None:
        """Free the networks and their buffers."""
        self._executor.forget()
        self._backend.close()
