"""Gaussian8 through the runtime: what `ikc-eval` measures.

Every HR image of a dataset is degraded by the eight sigmas of the scale
(`evaluation.gaussian8`). For each of these cases the blind loop runs once and every step's image
is scored, beside two marks: bicubic upscaling, and F under the true kernel. Figures are means
over images and sigmas, each case weighing the same. No step is chosen with the ground truth:
such a figure is an oracle, out of reach for anyone who does not know the answer.

numpy and the runtime only; scikit-image for SSIM.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle import Manifest
from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.evaluation.gaussian8 import (
    SIGMAS,
    crop_to_multiple,
    degrade_gaussian,
    upscale_bicubic,
)
from ikc_deploy.evaluation.metrics import psnr_y, ssim_y
from ikc_deploy.images import list_images, read_rgb
from ikc_deploy.runtime.frames import SMALLEST_SIDE
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.version import __version__

PROTOCOL: Final = "gaussian8"

PSNR_CEILING: Final = 100.0
"""dB that equal images count as, and the most that any count as: infinity has no mean, no JSON."""

Progress = Callable[[str, int, int], None]
"""Called with a dataset's name, cases done and cases in all."""

_DISTRIBUTIONS: Final = ("numpy", "onnxruntime-gpu", "onnxruntime", "scikit-image")


@dataclass(frozen=True)
class Quality:
    """How near one image is to its HR image, or the mean over many."""

    psnr_y: float
    """dB, at most `PSNR_CEILING`."""
    ssim_y: float


@dataclass(frozen=True)
class StepQuality:
    """The loop's image and estimate after `step` corrections; step 0 is the predictor alone."""

    step: int
    psnr_y: float
    ssim_y: float
    sigma_mae: float
    """|sigma nearest to the code - true sigma|, in HR pixels."""


@dataclass(frozen=True)
class Figures:
    """What is measured on one case, or the mean over a dataset."""

    bicubic: Quality
    true_kernel: Quality
    steps: tuple[StepQuality, ...]


@dataclass(frozen=True)
class Dataset:
    """HR images under a name."""

    name: str
    paths: tuple[Path, ...]

    @classmethod
    def open(cls, folder: Path, scale: int) -> Dataset:
        """The images of `folder`, each decoded once to see that it can be measured.

        The dataset is named like the folder. Raises `InputError` naming the folder or the image.
        """
        paths = tuple(list_images(folder))
        for path in paths:
            read_hr(path, scale)
        return cls(folder.resolve().name, paths)


@dataclass(frozen=True)
class DatasetReport:
    """Means over the images of one dataset and all sigmas."""

    images: int
    figures: Figures


@dataclass(frozen=True)
class Report:
    """One bundle measured on some datasets."""

    manifest: Manifest
    datasets: dict[str, DatasetReport]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: finite numbers and text only."""
        sigmas = list(SIGMAS[self.manifest.scale])
        return {
            "protocol": PROTOCOL,
            "scale": self.manifest.scale,
            "weights": self.manifest.name,
            "weights_sha256": self.manifest.weights_sha256,
            "precision": self.manifest.precision,
            "datasets": {
                name: {"images": report.images, "sigmas": sigmas, **asdict(report.figures)}
                for name, report in self.datasets.items()
            },
            "tools": _tools(),
        }


def read_hr(path: Path, scale: int) -> NDArray[np.uint8]:
    """An HR image `[H,W,3]` uint8, cropped to multiples of `scale`.

    Raises `InputError` naming `path` if it cannot be read or its LR image would be too small.
    """
    image = read_rgb(path)
    smallest = scale * SMALLEST_SIDE
    if min(image.shape[:2]) < smallest:
        raise InputError(
            f"'{path}' has {image.shape[1]}x{image.shape[0]} pixels; "
            f"an HR image for x{scale} needs at least {smallest} on each side"
        )
    return crop_to_multiple(image, scale)


def evaluate(
    upscaler: Upscaler, folders: Sequence[Path], progress: Progress = lambda *_: None
) -> Report:
    """Measure the upscaler's bundle on every folder of HR images, all steps up to its `iters`.

    Every image is checked before the first is measured. Raises `InputError` for an unusable
    folder or image, two folders of one name, or a bundle that the protocol cannot measure.
    """
    manifest = upscaler.bundle.manifest
    _check_bundle(upscaler)
    datasets: dict[str, Dataset] = {}
    for folder in folders:
        dataset = Dataset.open(folder, manifest.scale)
        if dataset.name in datasets:
            raise InputError(
                f"two folders are named '{dataset.name}', so their figures could not be told "
                "apart; rename one or measure it in another run"
            )
        datasets[dataset.name] = dataset
    return Report(
        manifest,
        {name: _measure(upscaler, dataset, progress) for name, dataset in datasets.items()},
    )


def measure_case(upscaler: Upscaler, hr: NDArray[np.uint8], sigma: float) -> Figures:
    """One HR image (sides multiples of the scale) degraded by one sigma."""
    scale = upscaler.scale
    lr = degrade_gaussian(hr, sigma, scale)
    bicubic = _quality(upscale_bicubic(lr, scale), hr, scale)
    blind = upscaler(lr, steps=True)
    if not np.all(np.isfinite(blind.codes)):
        raise BackendError(
            f"the bundle '{upscaler.bundle.path}' estimates kernel codes that are not finite; "
            "its weights have diverged or overflow in this precision: export it with --fp32"
        )
    errors = np.abs(upscaler.bundle.basis.sigma_of_code(blind.codes) - sigma)
    steps = tuple(
        StepQuality(step, *_scores(image, hr, scale), float(error))
        for step, (image, error) in enumerate(zip(blind.steps, errors, strict=True))
    )
    true_kernel = _quality(upscaler(lr, sigma=sigma).image, hr, scale)
    return Figures(bicubic, true_kernel, steps)


def mean_figures(cases: Sequence[Figures]) -> Figures:
    """The mean over cases of every figure, step by step."""
    return Figures(
        bicubic=_mean([case.bicubic for case in cases]),
        true_kernel=_mean([case.true_kernel for case in cases]),
        steps=tuple(_mean_step(step) for step in zip(*(case.steps for case in cases), strict=True)),
    )


def _check_bundle(upscaler: Upscaler) -> None:
    bundle = upscaler.bundle
    if bundle.manifest.io != "uint8":
        raise InputError(
            f"the bundle '{bundle.path}' takes float frames, and Gaussian8 is measured on 8-bit "
            "frames; export it with --io uint8"
        )
    low, high = bundle.basis.sigma_range
    sigmas = SIGMAS[bundle.manifest.scale]
    if not low <= sigmas[0] <= sigmas[-1] <= high:
        raise InputError(
            f"the bundle '{bundle.path}' is made for sigma {low:g} to {high:g}, and Gaussian8 at "
            f"x{bundle.manifest.scale} goes from {sigmas[0]:g} to {sigmas[-1]:g}; "
            "give weights whose range contains that"
        )


def _measure(upscaler: Upscaler, dataset: Dataset, progress: Progress) -> DatasetReport:
    sigmas = SIGMAS[upscaler.scale]
    total = len(dataset.paths) * len(sigmas)
    progress(dataset.name, 0, total)
    cases: list[Figures] = []
    for path in dataset.paths:
        hr = read_hr(path, upscaler.scale)
        for sigma in sigmas:
            cases.append(measure_case(upscaler, hr, sigma))
            progress(dataset.name, len(cases), total)
    return DatasetReport(len(dataset.paths), mean_figures(cases))


def _scores(image: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> tuple[float, float]:
    return min(psnr_y(image, hr, border), PSNR_CEILING), ssim_y(image, hr, border)


def _quality(image: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> Quality:
    return Quality(*_scores(image, hr, border))


def _mean(rows: Sequence[Quality]) -> Quality:
    return Quality(
        psnr_y=math.fsum(row.psnr_y for row in rows) / len(rows),
        ssim_y=math.fsum(row.ssim_y for row in rows) / len(rows),
    )


def _mean_step(rows: Sequence[StepQuality]) -> StepQuality:
    return StepQuality(
        step=rows[0].step,
        psnr_y=math.fsum(row.psnr_y for row in rows) / len(rows),
        ssim_y=math.fsum(row.ssim_y for row in rows) / len(rows),
        sigma_mae=math.fsum(row.sigma_mae for row in rows) / len(rows),
    )


def _tools() -> dict[str, str]:
    tools = {"ikc-deploy": __version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            tools[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return tools
