"""The quality and the speed of the ways to estimate the blur: for docs/estimation.md.

    python -m tools.measure_estimation --hr Set5 --hr Set14 --clips kodak --json out.json

Three measurements on this machine, each compared with `estimate="full"`:

- quality: every image of `--hr` under the blurs of Gaussian8, by "full" and by "crops";
- clips: a window that pans over images of `--clips`, under one blur each, by all three ways; and
  once under a blur that drifts;
- speed: "full", "crops" and "track" in turn on the same frames, and ratios of the medians. As the
  calls alternate, other load on the machine affects all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.benchmarks.synthetic_frames import natural_frame
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.datasets import open_datasets, read_hr
from ikc_deploy.imaging.degrade import SIGMAS, degrade_gaussian
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.loops import IKC
from ikc_deploy.runtime.estimation import ESTIMATES, Estimate
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import Upscaler, load_bundle

WINDOW: Final = 96
"""Side of the panning window in LR pixels."""

SETTLED: Final = 4
"""Number of frames at the start of a clip that are left out of the figures of a settled tracker."""

SPEED_SIZES: Final = ((256, 256), (270, 480))
"""Heights and widths of LR frames."""

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class EstimationPlan:
    """The plan of the measurements.

    Raises:
        InputError: A value is out of range.
    """

    folders: tuple[Path, ...]
    """Folders of HR images for the quality."""
    clips: Path | None
    """Folder of HR images to pan over; None to skip the clips."""
    blurs: int = 8
    """Number of blurs of Gaussian8, evenly spread."""
    clip_images: int = 8
    """Number of images to pan over."""
    clip_frames: int = 16
    """Number of frames of a clip under one blur."""
    drift_frames: int = 64
    """Number of frames of the clip under a drifting blur."""
    rounds: int = 5
    """Number of timed calls of each way; 0 to skip the speed."""

    def __post_init__(self) -> None:
        """Require numbers in range, and clips that are longer than the estimate takes to settle."""
        if not 1 <= self.blurs <= 8 or self.clip_images < 1 or self.rounds < 0:
            raise InputError(
                "--blurs must be 1 to 8, --clip-images at least 1, --rounds at least 0"
            )
        if min(self.clip_frames, self.drift_frames) <= SETTLED:
            raise InputError(f"a clip needs more than {SETTLED} frames")

    def sigmas(self, scale: int) -> list[float]:
        """Return the sigmas to measure, in HR pixels."""
        chosen = np.linspace(0, 7, self.blurs).round().astype(int)
        return [SIGMAS[scale][index] for index in chosen]


@dataclass(frozen=True)
class EstimationQuality:
    """The quality on one dataset: means over images and blurs."""

    dataset: str
    """Name of the dataset."""
    images: int
    """Number of images."""
    sigmas: list[float]
    """Sigmas of the blurs in HR pixels."""
    full_db: float
    """Mean PSNR-Y of "full" in dB."""
    crops_db: float
    """Mean PSNR-Y of "crops" in dB."""
    loss_db: float
    """PSNR-Y of "full" minus that of "crops"; negative where crops are better."""
    largest_loss_db: float
    """Largest loss of a single image under a single blur."""
    full_sigma_error: float
    """Mean |estimated - true| sigma of "full" in HR pixels."""
    crops_sigma_error: float
    """Mean |estimated - true| sigma of "crops" in HR pixels."""


@dataclass(frozen=True)
class ClipFigures:
    """The figures of one way to estimate, over all frames of all clips of a kind."""

    estimate: str
    """Way to estimate the blur."""
    psnr_db: float
    """Mean PSNR-Y in dB."""
    settled_psnr_db: float
    """Mean PSNR-Y without the first frames of each clip."""
    sigma_error: float
    """Mean |estimated - true| sigma in HR pixels."""
    sigma_jitter: float
    """Mean |change| of the estimated sigma from frame to frame."""
    flicker_levels: float
    """Mean |difference|, in 8-bit levels, between the image under its frame's code and under the
    code of the frame before: the part of the change from frame to frame that is due to the
    estimate."""


@dataclass(frozen=True)
class Speed:
    """The median times of alternating calls, and the speedup over "full"."""

    width: int
    """Width of the LR frame in pixels."""
    height: int
    """Height of the LR frame in pixels."""
    rounds: int
    """Number of timed calls of each way."""
    milliseconds: dict[str, float]
    """Wall-clock time of a call, by way of estimating."""
    processor_milliseconds: dict[str, float]
    """CPU time of all threads together, which other load on the machine affects little."""
    faster: dict[str, float]
    """Speedup over "full" in wall-clock time."""
    faster_by_processor: dict[str, float]
    """Speedup over "full" in CPU time."""


def measure_quality(upscaler: Upscaler, folder: Path, sigmas: list[float]) -> EstimationQuality:
    """Measure "full" and "crops" on every image of a folder, under Gaussians of these sigmas."""
    (dataset,) = open_datasets([folder], upscaler.scale)
    rows = []
    for path in dataset.paths:
        hr = read_hr(path, upscaler.scale)
        for sigma in sigmas:
            lr = degrade_gaussian(hr, sigma, upscaler.scale)
            full, crops = upscaler(lr, estimate="full"), upscaler(lr, estimate="crops")
            decibels = [psnr_y(each.image, hr, upscaler.scale) for each in (full, crops)]
            rows.append((*decibels, abs(full.sigma - sigma), abs(crops.sigma - sigma)))
    means = np.mean(rows, axis=0)
    losses = [row[0] - row[1] for row in rows]
    return EstimationQuality(
        dataset=dataset.name,
        images=len(dataset.paths),
        sigmas=sigmas,
        full_db=means[0],
        crops_db=means[1],
        loss_db=means[0] - means[1],
        largest_loss_db=max(losses),
        full_sigma_error=means[2],
        crops_sigma_error=means[3],
    )


def panning(
    hr: Frame, scale: int, sigmas: Sequence[float], window: int = WINDOW
) -> Iterator[tuple[Frame, Frame]]:
    """Yield HR and LR frames of a window that pans across `hr` diagonally, one for each sigma."""
    side = scale * window
    for share, sigma in zip(np.linspace(0, 1, len(sigmas)), sigmas, strict=True):
        top, left = (round(share * (size - side)) for size in hr.shape[:2])
        view = hr[top : top + side, left : left + side]
        yield view, degrade_gaussian(view, sigma, scale)


Rows = list[tuple[float, float, float]]
"""PSNR-Y, estimated sigma and flicker of every frame."""


def measure_clip(
    bundle: Bundle, threads: int, hr: Frame, sigmas: Sequence[float]
) -> dict[Estimate, Rows]:
    """Measure a clip by each way of estimating."""
    with load_bundle(bundle, UpscalerOptions(iters=IKC.iters, threads=threads)) as upscaler:
        return {way: _rows(upscaler, way, hr, sigmas) for way in ESTIMATES}


def _rows(upscaler: Upscaler, way: Estimate, hr: Frame, sigmas: Sequence[float]) -> Rows:
    frames = list(panning(hr, upscaler.scale, sigmas))
    rows: Rows = []
    before: NDArray[np.float32] | None = None
    results = upscaler.stream((lr for _, lr in frames), estimate=way)
    for (view, lr), result in zip(frames, results, strict=True):
        flicker = 0.0
        if before is not None:
            other = upscaler(lr, code=before).image.astype(np.int16)
            flicker = float(np.abs(result.image - other).mean())
        rows.append((psnr_y(result.image, view, upscaler.scale), result.sigma, flicker))
        before = result.codes[-1]
    return rows


def figures(estimate: str, clips: Sequence[tuple[Sequence[float], Rows]]) -> ClipFigures:
    """Return means over clips, given as true sigmas and the rows of `measure_clip`."""
    rows = [np.array(rows) for _, rows in clips]
    errors = [
        np.abs(each[:, 1] - truth).mean() for each, (truth, _) in zip(rows, clips, strict=True)
    ]
    return ClipFigures(
        estimate=estimate,
        psnr_db=float(np.mean([each[:, 0].mean() for each in rows])),
        settled_psnr_db=float(np.mean([each[SETTLED:, 0].mean() for each in rows])),
        sigma_error=float(np.mean(errors)),
        sigma_jitter=float(np.mean([np.abs(np.diff(each[:, 1])).mean() for each in rows])),
        flicker_levels=float(np.mean([each[1:, 2].mean() for each in rows])),
    )


def measure_speed(upscaler: Upscaler, height: int, width: int, rounds: int) -> Speed:
    """Time the three ways in turn on one frame, after a warm-up call of each."""
    frame = natural_frame(height, width)
    wall: dict[str, list[float]] = {way: [] for way in ESTIMATES}
    processor: dict[str, list[float]] = {way: [] for way in ESTIMATES}
    for turn in range(rounds + 1):
        for way in ESTIMATES:
            started = time.perf_counter(), time.process_time()
            upscaler(frame, estimate=way)
            if turn:
                wall[way].append(1e3 * (time.perf_counter() - started[0]))
                processor[way].append(1e3 * (time.process_time() - started[1]))
    walls, processors = _medians(wall), _medians(processor)
    return Speed(width, height, rounds, walls, processors, _faster(walls), _faster(processors))


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {way: float(np.median(found)) for way, found in times.items()}


def _faster(medians: dict[str, float]) -> dict[str, float]:
    return {way: medians["full"] / median for way, median in medians.items()}


def measure(
    bundle: Bundle, threads: int, plan: EstimationPlan, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Do all measurements; `keep` is called with the report so far after each."""
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "weights": bundle.manifest.name,
        "weights_sha256": bundle.manifest.weights_sha256,
        "iters": IKC.iters,
        "threads": threads,
    }
    with load_bundle(bundle, UpscalerOptions(iters=IKC.iters, threads=threads)) as upscaler:
        report["speed"] = []
        for height, width in SPEED_SIZES if plan.rounds else ():
            report["speed"].append(asdict(measure_speed(upscaler, height, width, plan.rounds)))
            keep(report)
        report["quality"] = []
        for folder in plan.folders:
            found = measure_quality(upscaler, folder, plan.sigmas(upscaler.scale))
            report["quality"].append(asdict(found))
            keep(report)
    if plan.clips is not None:
        report |= measure_clips(bundle, threads, plan, list_images(plan.clips))
        keep(report)


def measure_clips(
    bundle: Bundle, threads: int, plan: EstimationPlan, paths: Sequence[Path]
) -> dict[str, Any]:
    """Measure clips under one blur each, and one clip under a blur that drifts."""
    sigmas = plan.sigmas(bundle.manifest.scale)
    images = [read_rgb(path) for path in paths[: plan.clip_images]]
    steady = []
    for index, hr in enumerate(images):
        truth = [sigmas[index % len(sigmas)]] * plan.clip_frames
        steady.append((truth, measure_clip(bundle, threads, hr, truth)))
    drift = np.linspace(sigmas[0], sigmas[-1], plan.drift_frames).tolist()
    drifting = measure_clip(bundle, threads, images[0], drift)
    return {
        "steady_clips": len(images),
        "steady": [
            asdict(figures(way, [(s, rows[way]) for s, rows in steady])) for way in ESTIMATES
        ],
        "drift": [asdict(figures(way, [(drift, drifting[way])])) for way in ESTIMATES],
        "drift_true_sigma": drift,
        "drift_sigma": {way: [row[1] for row in drifting[way]] for way in ESTIMATES},
    }
