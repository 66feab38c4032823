"""One offline job: read and check an image, fit, run the non-blind stage, measure and write."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import read_kernel
from ikc_deploy.imaging.metrics import kernel_psnr, psnr_y
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.reading import read_picture, read_rgb
from ikc_deploy.locks import locked
from ikc_deploy.offline.forward_model import upscaled
from ikc_deploy.offline.methods import Method
from ikc_deploy.offline.nonblind_stage import NonBlindStage, padded
from ikc_deploy.offline.optimize import FitResult, Progress, optimize
from ikc_deploy.offline.outputs import (
    OUTPUTS,
    REPORT,
    STATE,
    check_output,
    read_report,
    write_image,
    write_report,
    write_result,
)
from ikc_deploy.runtime.estimation import textured_areas
from ikc_deploy.runtime.frame_plane import HostPlane
from ikc_deploy.runtime.frames import Area

PAPER_PEAK: Final = 1.0
"""Peak in the kernel PSNR of the FKP paper, about ten times the peak of a kernel."""

_GREEN: Final = 1
_STAGE_FILE: Final = re.compile(r"image-\w+\.png")


@dataclass(frozen=True, eq=False)
class OfflineJob:
    """A complete and checked job; create it with `plan`."""

    picture: Picture
    """LR image with its file's properties."""
    scale: int
    """Scale factor."""
    method: Method
    """Method that is fitted."""
    settings: Any
    """Settings of the method."""
    area: Area
    """Part of the LR image that is fitted."""
    reference: NDArray[np.uint8] | None
    """HR image of the whole LR image, `[sH,sW,3]`, to measure against; None for no measurement."""
    true_kernel: NDArray[np.float64] | None
    """True kernel `[k,k]` to measure against; None for no measurement."""
    nonblind: NonBlindStage | None
    """Stage that upscales the whole image under the estimated kernel; None for none."""


@dataclass(frozen=True, eq=False)
class OfflineOutcome:
    """The outcome of a job."""

    result: FitResult
    """Result of the fit."""
    figures: dict[str, float]
    """Measured values by their names in the report."""
    paths: list[Path]
    """Files that were written."""


def plan(
    image: Path,
    scale: int,
    method: Method,
    settings: Any,
    *,
    crop: int | None = None,
    reference: Path | None = None,
    true_kernel: Path | None = None,
    nonblind: NonBlindStage | None = None,
) -> OfflineJob:
    """Read and check the inputs of a job.

    Args:
        image: LR image file.
        scale: Scale factor.
        method: Method to fit.
        settings: Settings of the method.
        crop: Approximate side, in LR pixels, of the most textured square, to fit only that; None
            for the whole image.
        reference: HR image file to measure against.
        true_kernel: Kernel file (see `evaluation.blurs.read_kernel`) to measure against.
        nonblind: Stage that upscales the whole image under the estimated kernel.

    Raises:
        InputError: A file is missing or damaged, or files do not fit each other.
        KernelError: The kernel file does not hold a valid kernel.
    """
    if not method.finds_kernel and (nonblind or true_kernel):
        raise InputError(f"{method.name} finds no kernel; omit --then and --true-kernel")
    picture = read_picture(image)
    if picture.alpha is not None and picture.alpha.min() < 255:
        raise InputError(f"'{image}' has transparency, which {method.name} would lose; remove it")
    hr = None if reference is None else _read_reference(reference, picture, scale)
    kernel = None if true_kernel is None else read_kernel(true_kernel)
    return OfflineJob(picture, scale, method, settings, _area(picture, crop), hr, kernel, nonblind)


def run(
    job: OfflineJob,
    folder: Path,
    progress: Progress = lambda *_: None,
    stop: threading.Event | None = None,
) -> OfflineOutcome:
    """Run a job in `folder`, or resume an earlier run there.

    Files of an earlier run that do not belong to this result are deleted.

    Args:
        job: Job as `plan` returns it.
        folder: Output folder, new or of an earlier run of this job.
        progress: See `optimize`.
        stop: See `optimize`; what is fitted so far is written.

    Raises:
        OutputError: `folder` holds files that no earlier run wrote, or another process uses it
            (see `check_output` and `locked`).
        InputError: The method cannot fit the image (before the fit starts), or `folder` is of
            another job.
        KernelError: The non-blind stage does not support the kernel; the rest was written.
    """
    check_output(folder)
    with locked(folder):
        check_output(folder)
        earlier = read_report(folder) if (folder / STATE).exists() else None
        lr = np.ascontiguousarray(job.picture.rgb[job.area])
        fit = job.method.fit(lr, job.scale, job.settings)
        result = optimize(fit, progress, stop=stop, state=folder / STATE)
        return _write(job, folder, lr, result, earlier)


def _write(
    job: OfflineJob,
    folder: Path,
    lr: NDArray[np.uint8],
    result: FitResult,
    earlier: dict[str, Any] | None,
) -> OfflineOutcome:
    """Write everything except the state; `earlier` is the report of an earlier part of this fit."""
    kept = _delete_stale(folder, _report(job, result, {}, ()), earlier)
    stage_files = [] if job.nonblind is None else [_stage_file(job.nonblind)]
    # Listed before they are written, so that a killed run leaves no unlisted files.
    write_report(folder, _report(job, result, {}, (*OUTPUTS, *kept, *stage_files)))
    paths = write_result(folder, result, job.picture)
    figures = _image_figures(job, lr, result) | _kernel_figures(job, result)
    names = [STATE, *(path.name for path in paths), *kept]
    write_report(folder, _report(job, result, figures, names))
    if job.nonblind is not None and result.kernel is not None:
        write_report(folder, _report(job, result, figures, (*names, *stage_files)))
        paths.append(_nonblind_stage(job, job.nonblind, folder, result.kernel, figures))
        write_report(folder, _report(job, result, figures, (*names, *stage_files)))
    return OfflineOutcome(result, figures, paths)


def _delete_stale(
    folder: Path, report: dict[str, Any], earlier: dict[str, Any] | None
) -> list[str]:
    """Delete listed files that do not belong to the result of `report`; return those that stay.

    Files that every fit writes are overwritten anyway. The images of non-blind stages stay if
    `earlier` has the same fit at the same iteration.
    """
    listed = (read_report(folder) or {"files": []})["files"]
    written = {*OUTPUTS} if earlier is not None else {STATE}
    # Reports can be edited: only names that this program writes are accepted.
    ours = [name for name in listed if name in OUTPUTS or _STAGE_FILE.fullmatch(name)]
    others = [name for name in ours if name not in written and (folder / name).is_file()]
    if earlier is not None and _fit_identity(earlier) == _fit_identity(
        json.loads(json.dumps(report))
    ):
        return others
    for name in others:
        (folder / name).unlink()
    return []


def _fit_identity(report: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a report that determines the image of a non-blind stage."""
    settings = {
        name: value
        for name, value in report["settings"].items()
        if name not in ("iterations", "device")
    }
    names = ("method", "scale", "lr", "fitted", "iterations")
    return {name: report.get(name) for name in names} | {"settings": settings}


def _stage_file(stage: NonBlindStage) -> str:
    return f"image-{stage.name}.png"


def _nonblind_stage(
    job: OfflineJob,
    nonblind: NonBlindStage,
    folder: Path,
    kernel: NDArray[np.float64],
    figures: dict[str, float],
) -> Path:
    """Write the image of the non-blind stage, and add its measurements to `figures`."""
    result = nonblind(job.picture.rgb, kernel)
    if result.lost is not None:
        figures["kernel_lost"] = result.lost
    if job.reference is not None:
        figures[f"psnr_y_{nonblind.name}"] = psnr_y(result.image, job.reference, job.scale)
    return write_image(folder / _stage_file(nonblind), result.image, job.picture)


def _area(picture: Picture, crop: int | None) -> Area:
    if crop is None or crop >= max(picture.size):
        return slice(None), slice(None)
    (area,) = textured_areas(HostPlane(picture.rgb[..., _GREEN]), crop, 1)
    return area


def _read_reference(path: Path, picture: Picture, scale: int) -> NDArray[np.uint8]:
    """Read the HR image, without the rows and columns that no LR pixel covers."""
    hr = read_rgb(path)
    height, width = (scale * side for side in picture.size)
    if not (0 <= hr.shape[0] - height < scale and 0 <= hr.shape[1] - width < scale):
        raise InputError(
            f"--reference '{path}' has {hr.shape[1]}x{hr.shape[0]} pixels, and {scale} times the "
            f"LR image is {width}x{height}; give the HR image that the LR image was made from"
        )
    return hr[:height, :width]


def _image_figures(job: OfflineJob, lr: NDArray[np.uint8], result: FitResult) -> dict[str, float]:
    if job.reference is None:
        return {}
    hr = job.reference[tuple(_scaled(part, job.scale) for part in job.area)]
    bicubic = upscaled(lr, job.scale, getattr(job.settings, "alignment", "centre"))
    return {
        "psnr_y": psnr_y(result.image, hr, job.scale),
        "psnr_y_bicubic": psnr_y(bicubic, hr, job.scale),
    }


def _kernel_figures(job: OfflineJob, result: FitResult) -> dict[str, float]:
    if job.true_kernel is None or result.kernel is None:
        return {}
    size = max(len(job.true_kernel), len(result.kernel))
    found, expected = padded(result.kernel, size), padded(job.true_kernel, size)
    return {
        "kernel_psnr": kernel_psnr(found, expected, PAPER_PEAK),
        "kernel_psnr_of_its_peak": kernel_psnr(found, expected),
    }


def _scaled(part: slice, scale: int) -> slice:
    if part.stop is None:
        return part
    return slice(scale * part.start, scale * part.stop)


def _report(
    job: OfflineJob, result: FitResult, figures: dict[str, float], files: Sequence[str]
) -> dict[str, Any]:
    return {
        "method": job.method.name,
        "scale": job.scale,
        "settings": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(job.settings).items()
        },
        "lr": list(job.picture.size),
        "fitted": list(job.picture.rgb[job.area].shape[:2]),
        "iterations": len(result.history),
        "complete": result.complete,
        "last": result.history[-1] if result.history else {},
        "figures": figures,
        "files": sorted({*files} - {REPORT}),
    }
