"""A plot of sigma over time on a clip whose blur drifts: the true one and each estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ikc_deploy.reporting.plotting import INK, require_matplotlib, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES: Final = (6.4, 3.2)


def drift_figure(truth: Sequence[float], estimates: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the true and the estimated sigma of every frame.

    Args:
        truth: True sigmas in HR pixels, one for each frame.
        estimates: Estimated sigmas by the name of the way to estimate.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib("--plot")
    from matplotlib.figure import Figure

    figure = Figure(_INCHES, layout="constrained")
    axes = figure.subplots()
    for name, sigmas in estimates.items():
        axes.plot(sigmas, linewidth=1.3, label=name)
    axes.plot(truth, linewidth=1, linestyle="--", color=INK, label="true")
    axes.set_xlabel("frame", fontsize=8, color=INK)
    axes.set_ylabel("sigma in HR pixels", fontsize=8, color=INK)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    style_axes(axes)
    return figure
