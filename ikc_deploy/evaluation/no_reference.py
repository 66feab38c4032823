"""Figures of upscaled images for which there is no HR image.

- Blur effect (Crété et al., The blur effect, SPIE 2007; `skimage.measure.blur_effect`): how little
  luma changes when it is blurred again, from 0 (sharp) to 1 (blurred). It distinguishes blurred
  from sharp images of the same scene. It cannot distinguish detail from noise, ringing or
  oversharpening, all of which lower it, and it does not compare different scenes.
- Consistency: PSNR of luma, in dB, between the LR image and the output after blurring it by the
  kernel of the last step and bicubic downscaling. A low value shows that output and kernel do not
  explain the input. A high value does not show that they are right: many HR images have the same LR
  image, and bicubic upscaling is consistent with a narrow kernel.

Both only help to compare outputs of the same input; PSNR and SSIM need pairs (`pairs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError, needs_extra
from ikc_deploy.evaluation.blurs import BlurSet
from ikc_deploy.evaluation.datasets import refuse_equal_names
from ikc_deploy.evaluation.protocol import Progress, check_bundle
from ikc_deploy.evaluation.records import Method
from ikc_deploy.evaluation.summary import CONFIDENCE_TEXT, bootstrap_interval
from ikc_deploy.files import real_path
from ikc_deploy.imaging.degrade import degrade
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.metrics import luma, psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.reporting.tables import csv_text
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.runtime.upscaler import Upscaler


@dataclass(frozen=True)
class NoReferenceRecord:
    """The figures of one upscaled image."""

    dataset: str
    """Name of the folder."""
    image: str
    """File name of the LR image."""
    method: Method
    """Method of upscaling."""
    step: int | None
    """Number of corrections so far; None unless `method` is "blind"."""
    blur_effect: float
    """Blur effect, 0 to 1."""
    consistency: float
    """Consistency in dB, at most `metrics.MAX_PSNR`."""
    sigma_estimate: float | None = None
    """Sigma in HR pixels of the step's kernel; None unless `method` is "blind"."""


def open_lr(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the LR images of each folder by its name; every image is read once to check it.

    Raises:
        InputError: A folder or image cannot be used, or two folders have the same name.
    """
    refuse_equal_names(folders)
    found = {real_path(folder).name: list_images(folder) for folder in folders}
    for path in chain.from_iterable(found.values()):
        shape = read_rgb(path).shape
        if min(shape[:2]) < MIN_SIDE:
            raise InputError(
                f"'{path}' has {shape[1]}x{shape[0]} pixels; at least {MIN_SIDE} on each side "
                "are needed"
            )
    return found


def measure_without_reference(
    upscaler: Upscaler, images: dict[str, list[Path]], progress: Progress = lambda *_: None
) -> list[NoReferenceRecord]:
    """Upscale images and measure the output of bicubic upscaling and of every step.

    Args:
        upscaler: Upscaler to measure.
        images: LR images from `open_lr`.
        progress: Called after every image.

    Raises:
        InputError: The bundle does not support uint8, or an image cannot be read.
        BackendError: The networks produce kernel codes that are not finite.
        MissingExtraError: scikit-image is not installed.
    """
    check_bundle(upscaler, BlurSet.unknown())
    records: list[NoReferenceRecord] = []
    for name, paths in images.items():
        progress(name, 0, len(paths))
        for done, path in enumerate(paths, 1):
            records += _measure(upscaler, name, path)
            progress(name, done, len(paths))
    return records


def blur_effect(image: NDArray[np.uint8]) -> float:
    """Return the blur effect of luma of an RGB image `[H,W,3]` uint8, from 0 to 1.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    with needs_extra("evaluation", "the blur effect"):
        from skimage.measure import blur_effect as effect
    # A flat image has no edges: scikit-image divides 0 by 0.
    with np.errstate(invalid="ignore"):
        found = float(effect(luma(image)))  # type: ignore[no-untyped-call]
    return found if np.isfinite(found) else 1.0


def consistency(
    image: NDArray[np.uint8], lr: NDArray[np.uint8], kernel: NDArray[np.floating], scale: int
) -> float:
    """Return the PSNR-Y in dB of `lr` against `image`, blurred and downscaled; at most `MAX_PSNR`.

    Args:
        image: Output `[sH,sW,3]`, RGB uint8.
        lr: LR image `[H,W,3]`, RGB uint8.
        kernel: Blur kernel `[k,k]`, k odd, sum 1.
        scale: Scale factor s.
    """
    return psnr_y(degrade(image, kernel, scale), lr, 0)


def summary_rows(
    records: Sequence[NoReferenceRecord], seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Return the means of each folder by method and step, with 95 % bootstrap intervals."""
    rows: dict[str, list[dict[str, Any]]] = {}
    groups: dict[tuple[str, Method, int | None], list[NoReferenceRecord]] = {}
    for record in records:
        groups.setdefault((record.dataset, record.method, record.step), []).append(record)
    for (dataset, method, step), found in groups.items():
        row: dict[str, Any] = {"method": method, "step": step, "images": len(found)}
        for name in ("blur_effect", "consistency"):
            values = np.array([getattr(record, name) for record in found])
            row[name] = float(values.mean())
            row[f"{name}_95"] = bootstrap_interval(values, seed)
        rows.setdefault(dataset, []).append(row)
    return rows


TABLE_HEADER = ("", "blur effect", CONFIDENCE_TEXT, "consistency dB", CONFIDENCE_TEXT)
"""Columns of a table; the first holds the label of the row."""


def table_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a row from `summary_rows`."""
    label = row["method"] if row["step"] is None else f"step {row['step']}"

    def interval(name: str, digits: int) -> str:
        return "..".join(f"{bound:.{digits}f}" for bound in row[f"{name}_95"] or ())

    return (
        label,
        f"{row['blur_effect']:.3f}",
        interval("blur_effect", 3),
        f"{row['consistency']:.2f}",
        interval("consistency", 2),
    )


def to_csv(records: Sequence[NoReferenceRecord]) -> str:
    """Return CSV: a header, and a line for each record; empty where unknown."""
    columns = [field.name for field in fields(NoReferenceRecord)]
    return csv_text(columns, map(asdict, records))


def _measure(upscaler: Upscaler, dataset: str, path: Path) -> Iterator[NoReferenceRecord]:
    lr, scale = read_rgb(path), upscaler.scale
    blind = upscaler(lr, steps=True)
    basis = upscaler.bundle.basis

    def record(
        image: NDArray[np.uint8], method: Method, step: int | None, sigma: float | None
    ) -> NoReferenceRecord:
        agreement = consistency(image, lr, blind.kernel, scale)
        return NoReferenceRecord(
            dataset, path.name, method, step, blur_effect(image), agreement, sigma
        )

    yield record(upscale_bicubic(lr, scale), "bicubic", None, None)
    for step, (image, code) in enumerate(zip(blind.steps, blind.codes, strict=True)):
        yield record(image, "blind", step, float(basis.sigma_of_code(code)))
