"""Plots of a measurement: PSNR over the steps, and the estimated against the true sigma."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ikc_deploy.errors import OutputError
from ikc_deploy.evaluation.protocol import KernelExample
from ikc_deploy.evaluation.records import Record
from ikc_deploy.evaluation.render.kernel_plot import kernels_figure_of
from ikc_deploy.evaluation.summary import DatasetSummary
from ikc_deploy.files import check_file
from ikc_deploy.reporting.plotting import (
    INK,
    is_saved_figure,
    require_matplotlib,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_FILE: Final = "psnr.png"
SIGMA_FILE: Final = "sigma.png"
KERNELS_FILE: Final = "kernels.png"

_PURPOSE: Final = "a plot"
_PANEL_INCHES: Final = (3.2, 2.6)
_PANELS_ACROSS: Final = 3
_SQUARE_INCHES: Final = 4.2
_MIN_SPAN: Final = 0.2
_MARGIN: Final = 0.12


def save_plots(
    folder: Path,
    summaries: Sequence[DatasetSummary],
    records: Sequence[Record],
    kernels: Sequence[KernelExample] = (),
) -> list[Path]:
    """Write psnr.png, and sigma.png and kernels.png if there is something to draw, into `folder`.

    Those of another measurement are deleted.

    Returns:
        The paths of the files written.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: As `check_plots`.
    """
    check_plots(folder)
    figures = {CURVE_FILE: curve_figure(summaries)}
    if any(record.sigma_error is not None for record in records):
        figures[SIGMA_FILE] = sigma_figure(records)
    if kernels:
        figures[KERNELS_FILE] = kernels_figure_of(kernels)
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    for name in {SIGMA_FILE, KERNELS_FILE} - figures.keys():
        (folder / name).unlink(missing_ok=True)
    return [folder / name for name in figures]


def check_plots(folder: Path) -> None:
    """Refuse a folder in which `save_plots` cannot write, or would overwrite another image.

    Raises:
        OutputError: A file is in the way; the message names it.
    """
    for place in (folder / name for name in (CURVE_FILE, SIGMA_FILE, KERNELS_FILE)):
        check_file(place)
        if place.exists() and not is_saved_figure(place):
            raise OutputError(
                f"'{place}' was not written by ikc-deploy and would be lost; give another folder "
                "for the plots, or move it away"
            )


def curve_figure(summaries: Sequence[DatasetSummary]) -> Figure:
    """Draw the mean PSNR-Y over the steps, a panel for each dataset.

    The predictor alone and the true kernel are horizontal lines. All panels span the same number of
    dB, so slopes can be compared; datasets differ by decibels, steps by hundredths of one.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib(_PURPOSE)
    from matplotlib.figure import Figure

    across = min(len(summaries), _PANELS_ACROSS)
    down = -(-len(summaries) // across)
    width, height = _PANEL_INCHES
    figure = Figure((across * width, down * height + 0.4), layout="constrained")
    panels: Any = figure.subplots(down, across, squeeze=False)
    curves = [_levels(summary) for summary in summaries]
    spans = [max(levels) - min(levels) for levels in curves]
    span = max(_MIN_SPAN, *spans) * (1 + 2 * _MARGIN)
    for index, panel in enumerate(panels.flat):
        if index >= len(summaries):
            panel.set_axis_off()
            continue
        _draw_curve(panel, summaries[index], f"C{index}")
        middle = (max(curves[index]) + min(curves[index])) / 2
        panel.set_ylim(middle - span / 2, middle + span / 2)
    panels[0][0].set_ylabel("PSNR-Y in dB", fontsize=8, color=INK)
    return figure


def sigma_figure(records: Sequence[Record]) -> Figure:
    """Draw the last step's sigma against the true one, a mark for every image and blur.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib(_PURPOSE)
    from matplotlib.figure import Figure

    steps = [record for record in records if record.sigma_error is not None]
    last = max(record.step or 0 for record in steps)
    points: dict[str, list[tuple[float, float]]] = {}
    for record in steps:
        if record.step == last and record.sigma and record.sigma_estimate:
            point = (record.sigma, record.sigma_estimate)
            points.setdefault(record.dataset, []).append(point)
    figure = Figure((_SQUARE_INCHES, _SQUARE_INCHES), layout="constrained")
    axes: Any = figure.subplots()
    marks = {"linestyle": "", "marker": "o", "markersize": 4, "markeredgewidth": 0, "alpha": 0.6}
    for name, found in points.items():
        axes.plot(*zip(*found, strict=True), **marks, label=_literal(name))
    values = [value for found in points.values() for point in found for value in point]
    margin = _MARGIN * max(_MIN_SPAN, max(values) - min(values))
    limits = (min(values) - margin, max(values) + margin)
    line = {"color": INK, "linewidth": 0.8, "linestyle": "--"}
    axes.plot(limits, limits, **line, label="estimate = truth")
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel("true sigma in HR pixels", fontsize=8, color=INK)
    axes.set_ylabel(f"sigma estimated at step {last}", fontsize=8, color=INK)
    style_axes(axes)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    return figure


def _literal(name: str) -> str:
    """Escape dollars, which begin a formula in matplotlib."""
    return name.replace("$", r"\$")


def _levels(summary: DatasetSummary) -> list[float]:
    """Return the PSNR values that the panel of a dataset shows; bicubic is far below."""
    return [row.psnr_y.value for row in summary.rows if row.method != "bicubic"]


def _draw_curve(panel: Any, summary: DatasetSummary, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = [row for row in summary.rows if row.step is not None]
    values = [row.psnr_y.value for row in steps]
    panel.axhline(values[0], color=INK, linewidth=0.8, linestyle=":", label="predictor only")
    for row in summary.rows:
        if row.method == "true kernel":
            level = row.psnr_y.value
            panel.axhline(level, color=INK, linewidth=0.8, linestyle="--", label="true kernel")
    numbers = [row.step for row in steps]
    panel.plot(
        numbers, values, marker="o", markersize=4, linewidth=1.5, color=colour, label="blind"
    )
    panel.set_xlim(-0.4, len(steps) - 0.6)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.set_title(_literal(summary.name), fontsize=9, color=INK)
    panel.set_xlabel("step", fontsize=8, color=INK)
    style_axes(panel)
    panel.legend(fontsize=7, frameon=False, labelcolor=INK)
