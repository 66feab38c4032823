"""What a candidate's speed costs in quality: PSNR-Y on Gaussian8, at the last step."""

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
from ikc_deploy.imaging.metrics import MAX_PSNR, psnr_y
from ikc_deploy.runtime.upscaler import load_bundle


@dataclass(frozen=True)
class CandidateQuality:
    """A mean over images and the eight blurs of Gaussian8."""

    subject: str
    candidate: str
    iters: int
    dataset: str
    images: int
    psnr_y: float
    """In dB."""


def measure_quality(
    bundle: Bundle,
    settings: UpscalerVariant,
    folder: Path,
    iters: int,
    threads: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[str, int, float]:
    """(dataset, images, mean PSNR-Y) of an upscaler.

    Raises `InputError` for an unusable folder or image, or a bundle that takes no uint8 frames.
    """
    if bundle.manifest.io != "uint8":
        raise InputError("quality is measured on 8-bit frames; export with --io uint8")
    scale = bundle.manifest.scale
    dataset = Dataset.open(folder, scale)
    found: list[float] = []
    total = len(dataset.paths) * len(SIGMAS[scale])
    with load_bundle(bundle, settings.backend, iters, threads) as upscaler:
        for path in dataset.paths:
            hr = read_hr(path, scale)
            for sigma in SIGMAS[scale]:
                image = upscaler(degrade_gaussian(hr, sigma, scale), **settings.arguments).image
                found.append(min(psnr_y(image, hr, scale), MAX_PSNR))
                progress(len(found), total)
    return dataset.name, len(dataset.paths), fmean(found)
