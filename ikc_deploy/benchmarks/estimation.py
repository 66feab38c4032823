"""What cheaper estimation of the blur costs in quality, and what it saves: docs/estimation.md.

    python -m ikc_deploy.benchmarks.estimation --hr Set5 --hr Set14 --clips kodak --json out.json

Three measurements on this machine, each beside `estimate="full"`:

- quality: every image of `--hr` under the blurs of Gaussian8, by "full" and by "crops";
- clips: a window that pans over each image of `--clips`, under one blur, by all three, and once
  under a blur that drifts;
- speed: "full", "crops" and "track" in turn on the same frames, and ratios of the medians. Taken in
  turn, they share whatever else the machine is doing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.benchmarks.images import natural_frame
from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.cli.bundles import bundle_options, open_bundle
from ikc_deploy.cli.common import HELP, err_console, reports_errors
from ikc_deploy.evaluation.datasets import open_datasets, read_hr
from ikc_deploy.evaluation.gaussian8 import SIGMAS, degrade_gaussian
from ikc_deploy.evaluation.metrics import psnr_y
from ikc_deploy.files import write_atomically
from ikc_deploy.images import list_images, read_rgb
from ikc_deploy.runtime.estimation import ESTIMATES, Estimate
from ikc_deploy.runtime.upscaler import Upscaler, load_bundle

CLIP_FRAMES: Final = 16
DRIFT_FRAMES: Final = 64
WINDOW: Final = 112
"""Side of the panning window in LR pixels."""
SETTLED: Final = 8
"""Frames of a clip that are left out where a settled tracker is meant."""
SPEED_SIZES: Final = ((256, 256), (270, 480))
"""Heights and widths of LR frames."""

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Quality:
    """One data set: means over images and blurs."""

    dataset: str
    images: int
    full_db: float
    crops_db: float
    loss_db: float
    """Full less crops; negative where crops are better."""
    largest_loss_db: float
    """Of a single image under a single blur."""
    full_sigma_error: float
    """Mean |estimated - true| sigma in HR pixels."""
    crops_sigma_error: float


@dataclass(frozen=True)
class ClipFigures:
    """One way of estimating, over all frames of all clips of a kind."""

    estimate: str
    psnr_db: float
    settled_psnr_db: float
    """Without the first frames of each clip."""
    sigma_error: float
    sigma_jitter: float
    """Mean |change| of the estimated sigma from frame to frame."""
    flicker_levels: float
    """Mean |difference| between the change of the picture from frame to frame and the change that
    it would make under the true blur, in 8-bit levels."""


@dataclass(frozen=True)
class Speed:
    """Medians of calls in turn, in milliseconds, and how many times faster than "full"."""

    width: int
    height: int
    rounds: int
    full_ms: float
    crops_ms: float
    track_ms: float
    crops_faster: float
    track_faster: float


def measure_quality(upscaler: Upscaler, folder: Path) -> Quality:
    """ "full" against "crops" on every image of a folder, under the blurs of Gaussian8."""
    (dataset,) = open_datasets([folder], upscaler.scale)
    rows = []
    for path in dataset.paths:
        hr = read_hr(path, upscaler.scale)
        for sigma in SIGMAS[upscaler.scale]:
            lr = degrade_gaussian(hr, sigma, upscaler.scale)
            full, crops = upscaler(lr, estimate="full"), upscaler(lr, estimate="crops")
            decibels = [psnr_y(each.image, hr, upscaler.scale) for each in (full, crops)]
            rows.append((*decibels, abs(full.sigma - sigma), abs(crops.sigma - sigma)))
    means = np.mean(rows, axis=0)
    losses = [row[0] - row[1] for row in rows]
    return Quality(
        dataset=dataset.name,
        images=len(dataset.paths),
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
    """HR and LR frames of a window that goes from corner to corner of `hr`, one for each sigma."""
    side = scale * window
    for share, sigma in zip(np.linspace(0, 1, len(sigmas)), sigmas, strict=True):
        top, left = (round(share * (size - side)) for size in hr.shape[:2])
        view = hr[top : top + side, left : left + side]
        yield view, degrade_gaussian(view, sigma, scale)


def measure_clip(
    upscaler: Upscaler, hr: Frame, sigmas: Sequence[float]
) -> dict[Estimate, list[tuple[float, float, float]]]:
    """PSNR-Y, estimated sigma and flicker of every frame, by way of estimating."""
    found: dict[Estimate, list[tuple[float, float, float]]] = {way: [] for way in ESTIMATES}
    before: dict[str, NDArray[np.int16]] = {}
    first = True
    # A stream of its own for each way: each has a tracker.
    for view, lr in panning(hr, upscaler.scale, sigmas):
        steady = upscaler(lr, sigma=sigmas[len(found["full"])]).image.astype(np.int16)
        for way in ESTIMATES:
            if first and way == "track":
                upscaler(255 - lr[::-1], estimate="track")  # a scene before, cut off from this one
            result = upscaler(lr, estimate=way)
            image = result.image.astype(np.int16)
            beside = image - steady
            flicker = 0.0 if first else float(np.abs(beside - before[way]).mean())
            before[way] = beside
            decibels = psnr_y(result.image, view, upscaler.scale)
            found[way].append((decibels, result.sigma, flicker))
        first = False
    return found


def figures(
    estimate: str, clips: Sequence[tuple[Sequence[float], list[tuple[float, float, float]]]]
) -> ClipFigures:
    """Means over clips, given as true sigmas and the rows of `measure_clip`."""
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
    """Time the three ways in turn on one frame; each has been called before."""
    frame = natural_frame(height, width)
    times: dict[str, list[float]] = {way: [] for way in ESTIMATES}
    for turn in range(rounds + 1):
        for way in ESTIMATES:
            started = time.perf_counter()
            upscaler(frame, estimate=way)
            if turn:
                times[way].append(1e3 * (time.perf_counter() - started))
    full, crops, track = (float(np.median(times[way])) for way in ESTIMATES)
    return Speed(width, height, rounds, full, crops, track, full / crops, full / track)


def measure(
    upscaler: Upscaler,
    folders: Sequence[Path],
    clips: Path | None,
    rounds: int,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """All measurements; `keep` gets what there is after each."""
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "weights": upscaler.bundle.manifest.name,
        "iters": upscaler.iters,
        "speed": [],
        "quality": [],
    }
    for height, width in SPEED_SIZES if rounds else ():
        report["speed"].append(asdict(measure_speed(upscaler, height, width, rounds)))
        keep(report)
    if clips is not None:
        report["steady"], report["drift"] = measure_clips(upscaler, clips)
        keep(report)
    for folder in folders:
        report["quality"].append(asdict(measure_quality(upscaler, folder)))
        keep(report)


def measure_clips(upscaler: Upscaler, folder: Path) -> tuple[list[Any], dict[str, Any]]:
    """Figures of clips under one blur each, and of one under a blur that drifts."""
    images = [read_rgb(path) for path in list_images(folder)]
    range_ = SIGMAS[upscaler.scale]
    steady = []
    for index, hr in enumerate(images):
        sigmas = [range_[index % len(range_)]] * CLIP_FRAMES
        steady.append((sigmas, measure_clip(upscaler, hr, sigmas)))
    drift = np.linspace(range_[0], range_[-1], DRIFT_FRAMES).tolist()
    drifting = measure_clip(upscaler, images[0], drift)
    return (
        [asdict(figures(way, [(s, rows[way]) for s, rows in steady])) for way in ESTIMATES],
        {
            "figures": [asdict(figures(way, [(drift, drifting[way])])) for way in ESTIMATES],
            "true_sigma": drift,
            "sigma": {way: [row[1] for row in drifting[way]] for way in ESTIMATES},
        },
    )


@click.command(context_settings=HELP)
@click.option("--hr", "folders", multiple=True, type=click.Path(path_type=Path), help="HR images.")
@click.option("--clips", type=click.Path(path_type=Path), help="HR images to pan over.")
@click.option("--rounds", type=int, default=3, help="Timed calls of each way; 0 for no speed.")
@click.option("--threads", type=int, default=0, help="CPU cores to use.  [default: all]")
@click.option("--json", "path", type=click.Path(path_type=Path), required=True)
@bundle_options
@reports_errors
def main(
    folders: tuple[Path, ...],
    clips: Path | None,
    rounds: int,
    threads: int,
    path: Path,
    weights: str | None,
    folder: Path | None,
) -> None:
    """Measure the ways of estimating the blur; the file is written after every part."""

    def keep(report: dict[str, Any]) -> None:
        text = json.dumps(report, indent=2, default=lambda value: round(float(value), 4))
        write_atomically(path, f"{text}\n".encode())
        err_console.print(f"{path}: {', '.join(report)}")

    with load_bundle(open_bundle(weights, folder), "auto", 7, threads) as upscaler:
        measure(upscaler, folders, clips, rounds, keep)


if __name__ == "__main__":
    main()
