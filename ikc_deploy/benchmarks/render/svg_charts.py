"""The charts of a report as SVG, drawn by matplotlib: text remains text, nothing is loaded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ikc_deploy.benchmarks.interleaved import CaseResult
from ikc_deploy.benchmarks.report import BenchmarkReport, measurements_with_cases
from ikc_deploy.benchmarks.statistics import slope
from ikc_deploy.reporting.plotting import INK, require_matplotlib, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES: Final = (7.2, 4.2)
_BAR_INCHES: Final = 0.26
_MARKERS: Final = "osD^vPX*<>hp"
_OVERHEAD: Final = "#999999"

Series = dict[str, list[tuple[float, float]]]


def latency_chart(report: BenchmarkReport) -> str:
    """Return the chart of median latency by LR pixels, log-log, with a line for each candidate.

    It shows the smallest batch and the largest number of corrections that were measured.
    """
    series: Series = {}
    batch = min(result.case.batch for result in report.results)
    most = max(result.case.iters for result in report.results)
    for result, measurement in measurements_with_cases(report.results):
        if result.case.batch == batch and result.case.iters == most:
            name = f"{result.subject}, {measurement.candidate}"
            series.setdefault(name, []).append((result.case.pixels, measurement.latency_ms.median))
    with _figure(_INCHES) as (figure, axes):
        for index, (name, points) in enumerate(series.items()):
            sizes, times = zip(*sorted(points), strict=True)
            exponent = slope(sizes, times)
            label = name if exponent is None else f"{name}: slope {exponent:.2f}"
            marker = _MARKERS[index % len(_MARKERS)]
            axes.plot(sizes, times, marker=marker, markersize=5, linewidth=1.3, label=label)
        _logarithmic(axes, "x")
        _logarithmic(axes, "y")
        axes.set_xlabel("LR pixels of a frame", fontsize=9, color=INK)
        axes.set_ylabel(f"ms a call, iters {most}", fontsize=9, color=INK)
        style_axes(axes)
        _legend(axes)
        return _svg(figure)


def stage_chart(report: BenchmarkReport, subject: str) -> str:
    """Return the chart of each call's mean time by network and overhead, a bar for each entry."""
    rows = [pair for pair in measurements_with_cases(report.results) if pair[0].subject == subject]
    height = 1.1 + _BAR_INCHES * len(rows)
    with _figure((_INCHES[0], height)) as (figure, axes):
        labels = [f"{measurement.candidate}, {_short(result)}" for result, measurement in rows]
        left = [0.0] * len(rows)
        # In the order of the first subject that has them.
        stages = dict.fromkeys(name for _, each in rows for name in each.stages_ms)
        for index, stage in enumerate((*stages, "overhead")):
            shares = [
                100
                * (
                    measurement.overhead
                    if stage == "overhead"
                    else measurement.stages_ms.get(stage, 0.0) / measurement.latency_ms.mean
                )
                for _, measurement in rows
            ]
            colour = _OVERHEAD if stage == "overhead" else f"C{index}"
            axes.barh(range(len(rows)), shares, left=left, color=colour, label=stage, height=0.7)
            left = [sum(pair) for pair in zip(left, shares, strict=True)]
        axes.set_yticks(range(len(rows)), labels=labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of a call", fontsize=9, color=INK)
        style_axes(axes)
        axes.legend(
            fontsize=8,
            frameon=False,
            labelcolor=INK,
            ncols=4,
            loc="lower left",
            bbox_to_anchor=(0, 1),
        )
        return _svg(figure)


def quality_chart(report: BenchmarkReport) -> str:
    """Return the chart of PSNR-Y on Gaussian8 by ms: each candidate at the case nearest to 64x64.

    Only candidates that were timed with the same number of corrections appear.
    """
    points: Series = {}
    for quality in report.qualities:
        timed = [
            (abs(result.case.pixels - 64 * 64), measurement.latency_ms.median)
            for result, measurement in measurements_with_cases(report.results)
            if (result.subject, measurement.candidate, result.case.iters)
            == (quality.subject, quality.candidate, quality.iters)
        ]
        if timed:
            name = f"{quality.subject}, {quality.candidate}, iters {quality.iters}"
            points.setdefault(name, []).append((min(timed)[1], quality.psnr_y))
    with _figure(_INCHES) as (figure, axes):
        for index, (name, found) in enumerate(points.items()):
            marker = _MARKERS[index % len(_MARKERS)]
            axes.plot(*zip(*found, strict=True), linestyle="", marker=marker, label=name)
        _logarithmic(axes, "x")
        axes.set_xlabel("ms a call", fontsize=9, color=INK)
        axes.set_ylabel("PSNR-Y in dB, Gaussian8", fontsize=9, color=INK)
        style_axes(axes)
        _legend(axes)
        return _svg(figure)


def _logarithmic(axes: Any, which: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _short(result: CaseResult) -> str:
    case = result.case
    batch = f" x{case.batch}" if case.batch > 1 else ""
    return f"{case.width}x{case.height}{batch}, t={case.iters}"


def _legend(axes: Any) -> None:
    axes.legend(
        fontsize=8, frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=1
    )


@contextmanager
def _figure(inches: tuple[float, float]) -> Iterator[tuple[Figure, Any]]:
    require_matplotlib("the charts of --html")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text as text: smaller, searchable, and read by screen readers. A fixed salt: equal reports
    # result in equal pages.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ikc", "font.family": "sans-serif"}):
        figure = Figure(inches, layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
