"""The quality of a candidate: PSNR-Y on Gaussian8 at the last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ikc_deploy.benchmarks.candidates import UpscalerVariant
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.datasets import Dataset, read_hr
from ikc_deploy.imaging.degrade import SIGMAS, degrade_gaussian
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.runtime.upscaler import load_bundle
from ikc_deploy.typed_values import PathText


@dataclass(frozen=True)
class CandidateQuality:
    """The mean PSNR-Y of a candidate over images and the eight blurs of Gaussian8."""

    subject: PathText
    """Weights or bundle under test."""
    candidate: str
    """Name of the candidate."""
    iters: int
    """Number of corrections."""
    dataset: PathText
    """Name of the dataset."""
    images: int
    """Number of images."""
    psnr_y: float
    """Mean PSNR of luma in dB."""


def measure_quality(
    bundle: Bundle,
    settings: UpscalerVariant,
    folder: Path,
    iters: int,
    threads: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[str, int, float]:
    """Measure the mean PSNR-Y of an upscaler on Gaussian8.

    Args:
        bundle: Bundle to measure; must take uint8 frames.
        settings: Backend and arguments of the upscaler.
        folder: Folder of HR images.
        iters: Number of corrections.
        threads: Number of CPU cores to use; 0 for all.
        progress: Called with the number of cases done and of all cases.

    Returns:
        Name of the dataset, number of images, and mean PSNR-Y in dB.

    Raises:
        InputError: The folder or an image is unusable, or the bundle takes float frames.
    """
    if bundle.manifest.io != "uint8":
        raise InputError("quality is measured on 8-bit frames; export with --io uint8")
    scale = bundle.manifest.scale
    dataset = Dataset.open(folder, scale)
    found: list[float] = []
    total = len(dataset.paths) * len(SIGMAS[scale])
    with load_bundle(bundle, settings.options(iters, threads)) as upscaler:
        for path in dataset.paths:
            hr = read_hr(path, scale)
            for sigma in SIGMAS[scale]:
                image = upscaler(degrade_gaussian(hr, sigma, scale), **settings.arguments).image
                found.append(psnr_y(image, hr, scale))
                progress(len(found), total)
    return dataset.name, len(dataset.paths), fmean(found)
