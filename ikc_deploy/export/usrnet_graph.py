"""The fourth graph of a bundle: USRNet for one frame size, for known blur kernels.

| graph | inputs | outputs |
| --- | --- | --- |
| `usrnet` | `lr`, `kernel`, `noise` | `frame` with uint8 frames, else `sr` |

`lr` and the output have the format of `sftmd` (see `graphs`), for one frame of a fixed size.
`kernel` is `[1,k,k]` in the FKP convention, and `noise` `[1]` the standard deviation of the frame's
noise in units of [0,1]; both are float32. The Fourier transforms are products with constant
matrices, which every inference engine supports; therefore the size is fixed. The transforms and the
data steps are float32; the convolutions are float32 or float16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.bundle.bundle_writer import changed_bundle
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import (
    USRNET,
    Bundle,
    FrameIO,
    Precision,
    UsrnetRecord,
    write_manifest,
)
from ikc_deploy.bundle.measurements import UsrnetParity
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.bundle.tolerances import FRAME_LEVELS, LOOP
from ikc_deploy.errors import ExportError, InputError
from ikc_deploy.export.export_settings import UsrnetExport
from ikc_deploy.export.graphs import export_module, frames, planes
from ikc_deploy.export.precision import check_precision
from ikc_deploy.export.rounding import rounded_prior
from ikc_deploy.files import sha256_file
from ikc_deploy.imaging.resize import quantize
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.kernels.conventions import degrade_fkp, fkp_variances, shifted_gaussian
from ikc_deploy.networks.usrnet import Usrnet, load_usrnet, shipped_usrnet
from ikc_deploy.networks.usrnet_data_step import Spectrum
from ikc_deploy.runtime.frames import LAYOUTS
from ikc_deploy.runtime.nonblind import NonBlind
from ikc_deploy.runtime.tiling import RAMP, SPARE

KERNEL_SIDE: Final = 45
"""Side of the graph's kernel in pixels: the largest of FKP's and of this project's 21x21 ones,
whose bicubic downscaling and shift become part of them."""

FLOAT_DB: Final = 110.0
"""PSNR in dB that float32 reaches: the Fourier transforms, as products, sum over whole rows."""

PEAKS: Final = 30.0
"""Largest ratio of an image's maximum error to its RMS error: rounding errors are largest at
edges, far above the mean."""

ROUNDED_DB: Final = 58.5
"""Highest PSNR in dB that is required of rounded frames: rounding to 8 bits alone limits it to
58.9 dB. Their difference in levels is the stricter limit."""

_SHIFT: Final = 16
"""Distance in LR pixels of the two frames that are compared to measure the halo."""


class DftMatrices(nn.Module):
    """The transforms of `Fft` for planes of one size, as products with constant matrices.

    Args:
        height: Height of the planes.
        width: Width of the planes.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        half = width // 2 + 1
        down, across = _angles(height, height), _angles(width, half)
        # All columns but the first, and the middle one of an even width, count twice.
        weight = np.full(half, 2.0)
        weight[0] = 1
        if width % 2 == 0:
            weight[-1] = 1
        share = weight[:, None] / (height * width)
        self.columns = half
        constants = {
            "down_cos": np.cos(down),
            "down_sin": np.sin(down),
            "across": np.concatenate((np.cos(across), -np.sin(across)), axis=1),
            "back": np.concatenate((np.cos(across.T) * share, -np.sin(across.T) * share)),
        }
        for name, array in constants.items():
            self.register_buffer(name, torch.from_numpy(array.astype(np.float32)))
        self.down_cos: Tensor
        self.down_sin: Tensor
        self.across: Tensor
        self.back: Tensor

    def forward(self, planes: Tensor) -> Spectrum:
        """Return the spectrum of planes `[...,h,w]` float32."""
        real, imaginary = (planes @ self.across).tensor_split((self.columns,), dim=-1)
        return (
            self.down_cos @ real + self.down_sin @ imaginary,
            self.down_cos @ imaginary - self.down_sin @ real,
        )

    def inverse(self, spectrum: Spectrum, size: tuple[int, int]) -> Tensor:  # noqa: ARG002
        """Return planes `[...,h,w]` from their spectrum."""
        real, imaginary = spectrum
        rows = torch.cat(
            (
                self.down_cos @ real - self.down_sin @ imaginary,
                self.down_cos @ imaginary + self.down_sin @ real,
            ),
            dim=-1,
        )
        return rows @ self.back


def _angles(length: int, frequencies: int) -> NDArray[np.float64]:
    """Return 2 pi n f / length `[length,frequencies]`, reduced to one turn first, for precision."""
    turns = np.outer(np.arange(length), np.arange(frequencies)) % length
    return 2 * np.pi * turns / length


class UsrnetGraph(nn.Module):
    """The USRNet graph: `lr`, `kernel` and `noise` to `frame` or `sr`.

    Args:
        network: USRNet in float32.
        scale: Scale factor.
        io: Type of the frames.
    """

    def __init__(self, network: Usrnet, scale: int, io: FrameIO) -> None:
        super().__init__()
        self.body, self.scale, self.io = network, scale, io

    def forward(self, lr: Tensor, kernel: Tensor, noise: Tensor) -> Tensor:
        """Return `frame` or `sr`, as in the contract of the graph."""
        sr = self.body(planes(lr, self.io), kernel, self.scale, noise).clamp(0.0, 1.0)
        return frames(sr) if self.io == "uint8" else sr


def add_usrnet(
    folder: Path, settings: UsrnetExport, on_progress: Callable[[str], None] = lambda _: None
) -> Bundle:
    """Add the fourth graph to a bundle, or replace it; return the bundle opened and verified.

    The graph has the bundle's io and precision, but float32 in INT8 bundles. If the export fails or
    the process is killed, the bundle stays unchanged.

    Args:
        folder: Folder of the bundle.
        settings: Weights and frame size.
        on_progress: Called with the name of each phase when it starts.

    Raises:
        BundleError: The bundle is missing or damaged.
        CheckpointError: The weights are missing or damaged.
        ExportError: A convolution has the wrong precision, or the graph exceeds the parity limits.
        InputError: The frame size is too small for the network.
    """
    source = settings.weights or shipped_usrnet()
    network = load_usrnet(source)
    with changed_bundle(folder) as (before, changed):
        on_progress(USRNET)
        record = _written(network, before, changed, settings.at(before.manifest.scale))
        record = replace(record, weights_sha256=sha256_file(source))
        manifest = replace(before.manifest, usrnet=record)
        files = {**before.files, **record_files(changed, [f"{USRNET}.onnx"])}
        write_manifest(changed, manifest, files)
        on_progress("parity and halo")
        with NonBlind(Bundle.open(changed)) as written:
            record = _checked(record, network, written)
        write_manifest(changed, replace(manifest, usrnet=record), files)
    return Bundle.open(folder)


def _written(network: Usrnet, bundle: Bundle, folder: Path, size: tuple[int, int]) -> UsrnetRecord:
    """Write the graph for `bundle` into `folder`; return its record without measurements."""
    manifest = bundle.manifest
    precision: Precision = "fp16" if manifest.precision == "fp16" else "fp32"
    path = folder / bundle.graph(USRNET).name
    export_usrnet(network, path, manifest.scale, size, precision, manifest.io)
    return UsrnetRecord(
        height=size[0],
        width=size[1],
        kernel_size=KERNEL_SIDE,
        halo=0,
        precision=precision,
        weights_sha256="",
        parity=None,
        convolutions=check_precision(path, precision),
        training=network.training_record,
    )


def export_usrnet(
    network: Usrnet,
    path: Path,
    scale: int,
    size: tuple[int, int],
    precision: Precision,
    io: FrameIO,
) -> None:
    """Write the graph of a USRNet to a file.

    Args:
        network: Network on the CPU; it stays unchanged.
        path: ONNX file; an existing one is replaced.
        scale: SR factor.
        size: Height and width of the LR frames.
        precision: "fp16" for float16 convolutions, others for float32.
        io: Type of the frames.
    """
    prepared = deepcopy(network).eval()
    prepared.fourier = DftMatrices(*size)
    if precision == "fp16":
        prepared.prior.half()
    shape = (1, *size, 3) if io == "uint8" else (1, 3, *size)
    inputs = {
        "lr": torch.zeros(shape, dtype=torch.uint8 if io == "uint8" else torch.float32),
        "kernel": torch.zeros(1, KERNEL_SIDE, KERNEL_SIDE),
        "noise": torch.zeros(1),
    }
    fixed: dict[str, dict[int, str]] = {name: {} for name in inputs}
    outputs = ["frame" if io == "uint8" else "sr"]
    export_module(UsrnetGraph(prepared, scale, io), inputs, fixed, outputs, path)


def _checked(record: UsrnetRecord, network: Usrnet, written: NonBlind) -> UsrnetRecord:
    """Return `record` with parity and halo, both measured on the written graph."""
    scale, io = written.scale, written.bundle.manifest.io
    low, high = fkp_variances(scale)
    kernel = shifted_gaussian(high, low, 0.5, scale)
    lr = _structured(record, kernel, scale)
    found = written(_as_io(lr, io), kernel, 0.0, border="wrap")
    with torch.no_grad():
        inputs = torch.from_numpy(lr).permute(2, 0, 1)[None] / 255, torch.from_numpy(kernel)[None]
        exact = _image(network, inputs, scale)
        cost = FLOAT_DB
        if record.precision == "fp16":
            cost = min(cost, psnr(_image(rounded_prior(network), inputs, scale), exact))
    parity = _parity(found, exact, cost, io)
    least = parity.rounding_db - 20 * math.log10(LOOP)
    # Frames are rounded to 8 bits, which limits their PSNR.
    least = min(least, ROUNDED_DB) if io == "uint8" else least
    farthest = FRAME_LEVELS["fp32"] + 255 * 10 ** (
        -(parity.rounding_db - 20 * math.log10(PEAKS)) / 20
    )
    if not (parity.image_db >= least and parity.frame_levels <= farthest):
        raise ExportError(
            f"the {USRNET} graph differs from the network: {parity.image_db:.1f} dB and "
            f"{parity.frame_levels:.2f} levels; at least {least:.1f} dB and at most "
            f"{farthest:.2f} levels are allowed. The bundle is unchanged"
        )
    halo = _measured_halo(record, written)
    side = min(record.height, record.width)
    # Nothing can be measured beyond the middle of the area that both views show.
    if 2 * halo > side - _SHIFT or side <= 2 * halo + RAMP:
        raise InputError(
            f"frames of {record.height}x{record.width} are too small for this network, whose halo "
            f"is {halo} pixels or more; set a larger --res"
        )
    return replace(record, parity=parity, halo=halo)


def _structured(record: UsrnetRecord, kernel: NDArray[np.float64], scale: int) -> NDArray[np.uint8]:
    """Return a structured LR frame `[h,w,3]` of the graph's size, blurred by `kernel`."""
    height, width = scale * record.height, scale * record.width
    side = max(height, width)
    hr = structured_image(side, 0)[:height, :width]
    return quantize(degrade_fkp(hr, kernel, scale))


def _image(network: Usrnet, inputs: tuple[Tensor, Tensor], scale: int) -> NDArray[np.floating]:
    """Return the unrounded image `[H,W,3]` of planes and a kernel."""
    return network(*inputs, scale)[0].clamp(0, 1).permute(1, 2, 0).numpy()


def _parity(
    found: NDArray[Any], exact: NDArray[np.floating], rounding_db: float, io: FrameIO
) -> UsrnetParity:
    """Return the PSNR, and for uint8 frames the largest difference in levels."""
    if io == "float":
        return UsrnetParity(psnr(np.moveaxis(found, 0, -1), exact), rounding_db, 0.0)
    levels = float(np.abs(found - 255 * exact).max())
    return UsrnetParity(psnr(found / 255, exact), rounding_db, levels)


def _measured_halo(record: UsrnetRecord, written: NonBlind) -> int:
    """Return the distance in LR pixels at which content outside changes a frame by over one level.

    It is measured on two shifted frames of a structured image, whose surroundings differ near their
    edges, with FKP's widest kernel and without noise, where the distance is largest.
    """
    scale, io = written.scale, written.bundle.manifest.io
    _, high = fkp_variances(scale)
    kernel = shifted_gaussian(high, high, 0.0, scale)
    larger = replace(record, height=record.height + _SHIFT, width=record.width + _SHIFT)
    lr = _structured(larger, kernel, scale)
    views = lr[:-_SHIFT, :-_SHIFT], lr[_SHIFT:, _SHIFT:]
    first, second = (
        LAYOUTS[io].to_8bit_range(written(_as_io(view, io), kernel, 0.0, border="wrap"))
        for view in views
    )
    shift = scale * _SHIFT
    differences = np.abs(first[shift:, shift:] - second[:-shift, :-shift]).max(axis=2)
    height, width = (length // scale for length in differences.shape)
    wrong = differences.reshape(height, scale, width, scale).max(axis=(1, 3)) > 1
    rows, columns = (
        np.minimum(np.arange(length), np.arange(length)[::-1]) for length in (height, width)
    )
    distances = np.minimum(rows[:, None], columns[None, :])
    return SPARE + 1 + int(distances[wrong].max(initial=-1))


def _as_io(frame: NDArray[np.uint8], io: FrameIO) -> NDArray[Any]:
    return frame if io == "uint8" else (np.moveaxis(frame, -1, 0) / 255).astype(np.float32)
