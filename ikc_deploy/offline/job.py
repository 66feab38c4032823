"""One picture through one method: read and checked, fitted, finished, measured and written."""

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
from ikc_deploy.imaging.image_io import Picture, read_picture, read_rgb
from ikc_deploy.imaging.metrics import MAX_PSNR, kernel_psnr, psnr_y
from ikc_deploy.locks import locked
from ikc_deploy.offline.forward_model import upscaled
from ikc_deploy.offline.methods import Method
from ikc_deploy.offline.nonblind_stage import NonBlindStage, padded
from ikc_deploy.offline.optimize import FitResult, Progress
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
from ikc_deploy.runtime.estimation import Area, textured_areas

PAPER_PEAK: Final = 1.0
"""Peak in the kernel PSNR of the FKP paper, where a kernel's own is a tenth of that."""

_GREEN: Final = 1
_FINISHED: Final = re.compile(r"image-\w+\.png")


@dataclass(frozen=True, eq=False)
class OfflineJob:
    """What to do, complete and checked."""

    picture: Picture
    scale: int
    method: Method
    settings: Any
    area: Area
    """Of the LR picture, that is fitted."""
    reference: NDArray[np.uint8] | None
    """HR of the whole picture, `[sH,sW,3]`."""
    true_kernel: NDArray[np.float64] | None
    nonblind: NonBlindStage | None
    """Makes the whole picture again under the kernel."""


@dataclass(frozen=True, eq=False)
class OfflineOutcome:
    """What came of a job."""

    result: FitResult
    figures: dict[str, float]
    """What was measured, as the report has it."""
    paths: list[Path]


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
    """Read and check what a job needs.

    `crop` fits only the most textured square of about that many LR pixels. Raises `InputError` or
    `KernelError` for files that are missing, damaged or do not fit each other.
    """
    if not method.finds_kernel and (nonblind or true_kernel):
        raise InputError(f"{method.name} finds no kernel; leave out --then and --true-kernel")
    picture = read_picture(image)
    hr = None if reference is None else _read_reference(reference, picture, scale)
    truth = None if true_kernel is None else read_kernel(true_kernel)
    return OfflineJob(picture, scale, method, settings, _area(picture, crop), hr, truth, nonblind)


def run(
    job: OfflineJob,
    folder: Path,
    progress: Progress = lambda *_: None,
    stop: threading.Event | None = None,
) -> OfflineOutcome:
    """Do the job in `folder`, going on with what an earlier run left there.

    Files of an earlier run that are not this one's result are deleted.

    Raises:
        OutputError: `folder` holds anything else than an earlier run's files, or another process
            keeps it (see `check_output` and `locked`).
        InputError: A picture that the method cannot work on, before anything is fitted, or another
            job's folder.
        KernelError: The finish does not know the kernel; the rest was written.
    """
    check_output(folder)
    with locked(folder):
        check_output(folder)
        earlier = read_report(folder) if (folder / STATE).exists() else None
        lr = np.ascontiguousarray(job.picture.rgb[job.area])
        fit = job.method.load().fit
        result = fit(lr, job.scale, job.settings, progress, stop=stop, state=folder / STATE)
        return _write(job, folder, lr, result, earlier)


def _write(
    job: OfflineJob,
    folder: Path,
    lr: NDArray[np.uint8],
    result: FitResult,
    earlier: dict[str, Any] | None,
) -> OfflineOutcome:
    """Write everything but the state; `earlier` is what an earlier part of this fit reported."""
    kept = _delete_stale(folder, _report(job, result, {}, ()), earlier)
    finished = [] if job.nonblind is None else [_finish_name(job.nonblind)]
    # Listed before they are there: what a killed run leaves is known as its own.
    write_report(folder, _report(job, result, {}, (*OUTPUTS, *kept, *finished)))
    paths = write_result(folder, result, job.picture)
    figures = _image_figures(job, lr, result) | _kernel_figures(job, result)
    names = [STATE, *(path.name for path in paths), *kept]
    write_report(folder, _report(job, result, figures, names))
    if job.nonblind is not None and result.kernel is not None:
        write_report(folder, _report(job, result, figures, (*names, *finished)))
        paths.append(_nonblind_stage(job, job.nonblind, folder, result.kernel, figures))
        write_report(folder, _report(job, result, figures, (*names, *finished)))
    return OfflineOutcome(result, figures, paths)


def _delete_stale(
    folder: Path, report: dict[str, Any], earlier: dict[str, Any] | None
) -> list[str]:
    """Delete listed files of another result than `report` is about; returns those that stay.

    What every fit writes is written again; what stays are the pictures of finishes, if `earlier`
    has the same fit at the same iteration.
    """
    listed = (read_report(folder) or {"files": []})["files"]
    written = {*OUTPUTS} if earlier is not None else {STATE}
    # A report is a file like others: only names of our own making are believed.
    ours = [name for name in listed if name in OUTPUTS or _FINISHED.fullmatch(name)]
    others = [name for name in ours if name not in written and (folder / name).is_file()]
    if earlier is not None and _fitted(earlier) == _fitted(json.loads(json.dumps(report))):
        return others
    for name in others:
        (folder / name).unlink()
    return []


def _fitted(report: dict[str, Any]) -> dict[str, Any]:
    """What of a report decides what a finish makes."""
    settings = {
        name: value
        for name, value in report["settings"].items()
        if name not in ("iterations", "device")
    }
    names = ("method", "scale", "lr", "fitted", "iterations")
    return {name: report.get(name) for name in names} | {"settings": settings}


def _finish_name(finish: NonBlindStage) -> str:
    return f"image-{finish.name}.png"


def _nonblind_stage(
    job: OfflineJob,
    nonblind: NonBlindStage,
    folder: Path,
    kernel: NDArray[np.float64],
    figures: dict[str, float],
) -> Path:
    """Write the picture made again, and add what is measured of it to `figures`."""
    result = nonblind(job.picture.rgb, kernel)
    if result.lost is not None:
        figures["kernel_lost"] = result.lost
    if job.reference is not None:
        figures[f"psnr_y_{nonblind.name}"] = _psnr(result.image, job.reference, job.scale)
    return write_image(folder / _finish_name(nonblind), result.image, job.picture)


def _area(picture: Picture, crop: int | None) -> Area:
    if crop is None or crop >= max(picture.size):
        return slice(None), slice(None)
    (area,) = textured_areas(picture.rgb[..., _GREEN], crop, 1)
    return area


def _read_reference(path: Path, picture: Picture, scale: int) -> NDArray[np.uint8]:
    """The HR picture, less the rows and columns that no LR pixel stands for."""
    hr = read_rgb(path)
    height, width = (scale * side for side in picture.size)
    if not (0 <= hr.shape[0] - height < scale and 0 <= hr.shape[1] - width < scale):
        raise InputError(
            f"--reference '{path}' has {hr.shape[1]}x{hr.shape[0]} pixels, and {scale} times the "
            f"picture is {width}x{height}; give the HR image that the picture was made of"
        )
    return hr[:height, :width]


def _image_figures(job: OfflineJob, lr: NDArray[np.uint8], result: FitResult) -> dict[str, float]:
    if job.reference is None:
        return {}
    hr = job.reference[tuple(_enlarged(along, job.scale) for along in job.area)]
    bicubic = upscaled(lr, job.scale, getattr(job.settings, "alignment", "centre"))
    return {
        "psnr_y": _psnr(result.image, hr, job.scale),
        "psnr_y_bicubic": _psnr(bicubic, hr, job.scale),
    }


def _kernel_figures(job: OfflineJob, result: FitResult) -> dict[str, float]:
    if job.true_kernel is None or result.kernel is None:
        return {}
    size = max(len(job.true_kernel), len(result.kernel))
    found, truth = padded(result.kernel, size), padded(job.true_kernel, size)
    return {
        "kernel_psnr": kernel_psnr(found, truth, PAPER_PEAK),
        "kernel_psnr_of_its_peak": kernel_psnr(found, truth),
    }


def _psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8], scale: int) -> float:
    # Equal images have no finite PSNR, and JSON no infinity.
    return min(psnr_y(image, reference, scale), MAX_PSNR)


def _enlarged(along: slice, scale: int) -> slice:
    if along.stop is None:
        return along
    return slice(scale * along.start, scale * along.stop)


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
