"""What a contestant's speed costs in quality: PSNR-Y on Gaussian8, at the last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ikc_deploy.benchmarks.contestants import Ours
from ikc_deploy.bundle import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.datasets import Dataset, read_hr
from ikc_deploy.evaluation.gaussian8 import SIGMAS, degrade_gaussian
from ikc_deploy.evaluation.metrics import PSNR_CEILING, psnr_y
from ikc_deploy.runtime.upscaler import load_bundle


@dataclass(frozen=True)
class Quality:
    """A mean over images and the eight blurs of Gaussian8."""

    subject: str
    contestant: str
    iters: int
    dataset: str
    images: int
    psnr_y: float
    """In dB."""


def measure_quality(
    bundle: Bundle,
    settings: Ours,
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
                found.append(min(psnr_y(image, hr, scale), PSNR_CEILING))
                progress(len(found), total)
    return dataset.name, len(dataset.paths), fmean(found)
