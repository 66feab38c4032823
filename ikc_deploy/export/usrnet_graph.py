"""The fourth graph of a bundle: USRNet at one frame size, for kernels that are known.

| graph | inputs | outputs |
| --- | --- | --- |
| `usrnet` | `lr`, `kernel`, `noise` | `frame` with uint8 frames, else `sr` |

`lr` and the output are as those of `sftmd` (see `graphs`), for one frame of a fixed size. `kernel`
is `[1,k,k]` in the FKP convention and `noise` `[1]` the standard deviation of the frame's noise,
for values in [0,1]; both float32. The Fourier transforms are products with constant matrices,
which every engine has, and so the size is fixed. They and all of the data steps are float32; the
convolutions are so, or float16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.bundle.bundle_writer import changed_bundle
from ikc_deploy.bundle.manifest import (
    USRNET,
    Bundle,
    FrameIO,
    Precision,
    UsrnetRecord,
    record_files,
    write_manifest,
)
from ikc_deploy.bundle.measurements import UsrnetParity
from ikc_deploy.bundle.tolerances import FRAME, LOOP
from ikc_deploy.errors import ExportError, InputError
from ikc_deploy.export.graphs import export_module, frames, planes
from ikc_deploy.export.parity import psnr
from ikc_deploy.export.precision import check_precision
from ikc_deploy.export.rounding import rounded_prior
from ikc_deploy.files import sha256_file
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.kernels.conventions import degrade_fkp, fkp_variances, shifted_gaussian
from ikc_deploy.networks.usrnet import Spectrum, Usrnet, load_usrnet, shipped_usrnet
from ikc_deploy.runtime.nonblind import NonBlind
from ikc_deploy.runtime.tiling import RAMP, SPARE, to_8bit_range

KERNEL_SIDE: Final = 45
"""Of the kernel that the graph takes: the largest of FKP's and of our own 21x21 ones, whose
bicubic shrinking and shift become part of them."""

SR_SIDE: Final = 512
"""Of the frames that a graph makes unless it is asked for others: about half a gigabyte of memory,
and tiles that are mostly not margin."""

FLOAT_DB: Final = 110.0
"""PSNR that float32 costs: the Fourier transforms, as products, sum over whole rows."""

PEAKS: Final = 30.0
"""Largest error of an image over its RMS error: rounding costs most at edges, and far more there
than on the mean."""

ROUNDED_DB: Final = 58.5
"""What PSNR before rounding need not exceed where only rounded frames can be compared: rounding
alone costs 58.9 dB. Their distance in levels is the sharper gate."""

MIN_SIDE: Final = 32
"""LR pixels, of which the margins take their share."""

_STEP: Final = 8
"""The network works at an eighth of the SR resolution."""

_SHIFT: Final = 16
"""LR pixels between the two frames that are compared to measure the halo."""


@dataclass(frozen=True)
class UsrnetExport:
    """What the fourth graph is made of."""

    weights: Path | None = None
    """A checkpoint of ours; None for the shipped one."""
    size: tuple[int, int] | None = None
    """Height and width of its LR frames; None for what makes frames of about 512 pixels."""

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < MIN_SIDE:
            height, width = self.size
            raise InputError(
                f"frames of {height}x{width} are too small for a graph of their own; give --res at "
                f"least {MIN_SIDE}x{MIN_SIDE}"
            )

    def at(self, scale: int) -> tuple[int, int]:
        """Height and width for a scale."""
        side = _STEP * round(SR_SIDE / scale / _STEP)
        return self.size or (side, side)


class DftMatrices(nn.Module):
    """What `Fft` does, for planes of one size, with products of constant matrices."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        half = width // 2 + 1
        down, across = _angles(height, height), _angles(width, half)
        # All but the first column, and the middle one of an even width, stand for two.
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
        """Of `[..., h, w]` float32."""
        real, imaginary = (planes @ self.across).tensor_split((self.columns,), dim=-1)
        return (
            self.down_cos @ real + self.down_sin @ imaginary,
            self.down_cos @ imaginary - self.down_sin @ real,
        )

    def inverse(self, spectrum: Spectrum, size: tuple[int, int]) -> Tensor:  # noqa: ARG002
        """Planes `[..., h, w]`."""
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
    """2 pi n f / length, `[length, frequencies]`, reduced first so that it is exact."""
    turns = np.outer(np.arange(length), np.arange(frequencies)) % length
    return 2 * np.pi * turns / length


class UsrnetGraph(nn.Module):
    """`lr`, `kernel` and `noise` to `frame` or `sr`."""

    def __init__(self, network: Usrnet, scale: int, io: FrameIO) -> None:
        super().__init__()
        self.body, self.scale, self.io = network, scale, io

    def forward(self, lr: Tensor, kernel: Tensor, noise: Tensor) -> Tensor:
        sr = self.body(planes(lr, self.io), kernel, self.scale, noise).clamp(0.0, 1.0)
        return frames(sr) if self.io == "uint8" else sr


def add_usrnet(
    folder: Path, settings: UsrnetExport, on_progress: Callable[[str], None] = lambda _: None
) -> Bundle:
    """Give the bundle `folder` its fourth graph (or another one); returns it opened and verified.

    Precision and io are the bundle's own, but for INT8 bundles it is float32. Raises
    `CheckpointError` for the weights, `ExportError` if a convolution has the wrong precision or
    the graph misses the parity limits, `InputError` for a size that is too small for the network;
    then, as after a kill, the bundle is as it was.
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
    """Write the graph for `bundle` into `folder`; what is measured on it is not known yet."""
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
    """Write the graph for LR frames of `size`, (height, width), to `path`."""
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
    """`record` with parity and halo, both measured on the written graph."""
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
    # Frames have been rounded, and cannot be closer than that.
    least = min(least, ROUNDED_DB) if io == "uint8" else least
    farthest = FRAME["fp32"] + 255 * 10 ** (-(parity.rounding_db - 20 * math.log10(PEAKS)) / 20)
    if not (parity.image_db >= least and parity.frame_levels <= farthest):
        raise ExportError(
            f"the {USRNET} graph differs from the network: {parity.image_db:.1f} dB and "
            f"{parity.frame_levels:.2f} levels, and {least:.1f} dB and {farthest:.2f} levels are "
            "what rounding costs. The bundle is as it was"
        )
    halo = _measured_halo(record, written)
    side = min(record.height, record.width)
    # Farther than the middle of what both views show, nothing can be measured.
    if 2 * halo > side - _SHIFT or side <= 2 * halo + RAMP:
        raise InputError(
            f"frames of {record.height}x{record.width} are too small for this network, which "
            f"reaches {halo} pixels or more in from their edges; give a larger --res"
        )
    return replace(record, parity=parity, halo=halo)


def _structured(record: UsrnetRecord, kernel: NDArray[np.float64], scale: int) -> NDArray[np.uint8]:
    """An LR frame `[h,w,3]` of the graph's size with much structure, blurred by `kernel`."""
    height, width = scale * record.height, scale * record.width
    side = max(height, width)
    hr = structured_image(side, 0)[:height, :width]
    return np.rint(degrade_fkp(hr, kernel, scale)).clip(0, 255).astype(np.uint8)


def _image(network: Usrnet, inputs: tuple[Tensor, Tensor], scale: int) -> NDArray[np.floating]:
    """The unrounded image `[H,W,3]` of planes and a kernel."""
    return network(*inputs, scale)[0].clamp(0, 1).permute(1, 2, 0).numpy()


def _parity(
    found: NDArray[Any], exact: NDArray[np.floating], rounding_db: float, io: FrameIO
) -> UsrnetParity:
    """PSNR, and of frames the largest distance in levels."""
    if io == "float":
        return UsrnetParity(psnr(np.moveaxis(found, 0, -1), exact), rounding_db, 0.0)
    levels = float(np.abs(found - 255 * exact).max())
    return UsrnetParity(psnr(found / 255, exact), rounding_db, levels)


def _measured_halo(record: UsrnetRecord, written: NonBlind) -> int:
    """How far from an edge what lies beyond it tells by more than one level, in LR pixels.

    Two frames of a structured picture, the second a little further on: near their edges they see
    other things beyond. Under FKP's widest kernel and without noise, which reaches farthest.
    """
    scale, io = written.scale, written.bundle.manifest.io
    _, high = fkp_variances(scale)
    kernel = shifted_gaussian(high, high, 0.0, scale)
    larger = replace(record, height=record.height + _SHIFT, width=record.width + _SHIFT)
    lr = _structured(larger, kernel, scale)
    views = lr[:-_SHIFT, :-_SHIFT], lr[_SHIFT:, _SHIFT:]
    first, second = (
        to_8bit_range(written(_as_io(view, io), kernel, border="wrap"), io) for view in views
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
