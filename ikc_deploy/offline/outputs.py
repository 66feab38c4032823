"""The output files of a fit, for people and for programs.

The report lists the files. A folder with any other files is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.files import atomic_path, check_folder, write_atomically
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.resize import quantize
from ikc_deploy.imaging.writing import write_picture
from ikc_deploy.offline.optimize import FitResult, Losses
from ikc_deploy.reporting.plotting import INK, require_matplotlib, save_figure, style_axes
from ikc_deploy.reporting.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATE: Final = "fit.pt"
IMAGE: Final = "image.png"
KERNEL: Final = "kernel.npy"
KERNEL_IMAGE: Final = "kernel.png"
HISTORY: Final = "history.csv"
HISTORY_PLOT: Final = "history.png"
REPORT: Final = "report.json"
OUTPUTS: Final = (STATE, IMAGE, KERNEL, KERNEL_IMAGE, HISTORY, HISTORY_PLOT, REPORT)
"""Names of the files that a fit may write; a non-blind stage adds its image."""

KERNEL_IMAGE_SIDE: Final = 320
"""Approximate side in pixels; every kernel pixel becomes a whole number of pixels."""

_PANELS_ACROSS: Final = 3
_PANEL_INCHES: Final = (3.2, 2.2)


def check_output(folder: Path) -> None:
    """Refuse a folder that cannot be written or holds files that no earlier fit wrote.

    Raises:
        OutputError: `folder` cannot be written, or it exists and holds anything other than the
            files of an earlier fit.
    """
    check_folder(folder, _listed_files, "an output of ikc-offline", whole=False)


def read_report(folder: Path) -> dict[str, Any] | None:
    """Return the report of an earlier fit; None if there is none.

    Raises:
        InputError: The report is damaged, or not that of a fit.
    """
    path = folder / REPORT
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        files, own = report["files"], {"method", "settings", "iterations"} <= report.keys()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    if not own or not all(isinstance(name, str) for name in files):
        raise InputError(f"'{path}' is not a report of ikc-offline")
    return report


def write_result(folder: Path, result: FitResult, source: Picture) -> list[Path]:
    """Write image, kernel and history of a fit.

    Each file is written whole or left as it was.

    Args:
        folder: Folder to write into.
        result: Result of the fit.
        source: LR image, which determines colour space and whether the SR image is grey.

    Returns:
        The paths of the files written.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    paths = [write_image(folder / IMAGE, result.image, source)]
    if result.kernel is not None:
        paths += [
            _write_kernel(folder / KERNEL, result.kernel),
            _write_kernel_image(folder / KERNEL_IMAGE, result.kernel),
        ]
    if result.history:
        write_atomically(folder / HISTORY, history_csv(result.history).encode())
        save_figure(history_figure(result.history), folder / HISTORY_PLOT)
        paths += [folder / HISTORY, folder / HISTORY_PLOT]
    return paths


def write_image(path: Path, image: NDArray[np.uint8], source: Picture) -> Path:
    """Write an RGB image with the colour space of `source`, in grey if it is; return `path`."""
    metadata = source.metadata.without_description()
    write_picture(
        Picture(image, grey=source.grey, icc_profile=source.icc_profile, metadata=metadata), path
    )
    return path


def write_report(folder: Path, report: dict[str, Any]) -> Path:
    """Write settings and measurements as JSON; return the path."""
    text = json.dumps(report, indent=2, allow_nan=False)
    write_atomically(folder / REPORT, f"{text}\n".encode())
    return folder / REPORT


def history_csv(history: list[Losses]) -> str:
    """Return CSV with a line for each iteration, from 1, with its losses."""
    rows = ({"iteration": iteration} | losses for iteration, losses in enumerate(history, 1))
    return csv_text(["iteration", *_names(history)], rows)


def history_figure(history: list[Losses]) -> Figure:
    """Plot each loss over the iterations, logarithmically where all values are positive.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib("a plot of the history")
    from matplotlib.figure import Figure

    names = _names(history)
    across = min(len(names), _PANELS_ACROSS)
    down = -(-len(names) // across)
    width, height = _PANEL_INCHES
    figure = Figure((across * width, down * height), layout="constrained")
    panels: Any = figure.subplots(down, across, squeeze=False)
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(panels.flat, names, strict=False):
        # A loss may be missing in the first or last iterations.
        points = [(i, losses[name]) for i, losses in enumerate(history, 1) if name in losses]
        panel.plot(*zip(*points, strict=True), linewidth=1, color="C0", marker=_marker(points))
        if min(value for _, value in points) > 0:
            panel.set_yscale("log")
        panel.set_title(name, fontsize=8, color=INK)
        panel.set_xlabel("iteration", fontsize=8, color=INK)
        style_axes(panel)
    return figure


def kernel_image(kernel: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return a kernel `[k,k]` as a grey image `[n k, n k, 3]` uint8, enlarged by a whole number n.

    The peak is white; zero and negative values are black.
    """
    levels = quantize(255 * kernel / kernel.max())
    factor = max(1, KERNEL_IMAGE_SIDE // len(kernel))
    enlarged = levels.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.repeat(enlarged[..., None], 3, axis=2)


def _listed_files(folder: Path) -> list[str]:
    report = read_report(folder)
    # A fit writes its state before its report; the state is checked when it is read.
    return [STATE] if report is None else [REPORT, STATE, *report["files"]]


def _write_kernel(path: Path, kernel: NDArray[np.float64]) -> Path:
    with atomic_path(path) as temporary:
        np.save(temporary, kernel)
    return path


def _write_kernel_image(path: Path, kernel: NDArray[np.float64]) -> Path:
    write_picture(Picture(kernel_image(kernel), grey=True), path)
    return path


def _names(history: list[Losses]) -> list[str]:
    """Return the names of all losses, in the order in which they appear."""
    return list(dict.fromkeys(name for losses in history for name in losses))


def _marker(points: list[tuple[int, float]]) -> str:
    # A single point draws no line.
    return "." if len(points) == 1 else ""
