"""Plots: the blur estimated by the loop at each step, and the common style of all plots.

matplotlib (the `evaluation` extra) is imported when a figure is created, and used through its
objects, not through pyplot: no window system, no global state.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.errors import needs_extra
from ikc_deploy.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK: Final = "#333333"
"""Colour of text and thin lines."""

_SOFTWARE: Final = "ikc-deploy"
_COLUMNS: Final = 8
_PANEL_INCHES: Final = 1.35
_TITLE_INCHES: Final = 0.42
_CURVE_INCHES: Final = 1.7
_NARROWEST_INCHES: Final = 4.0
_DOTS_PER_INCH: Final = 150
_SCALE_POWER: Final = 1 / 3
_CURVE_COLOUR: Final = "#b5367a"


def require_matplotlib(purpose: str, extra: str = "evaluation") -> None:
    """Check that matplotlib is installed.

    Args:
        purpose: Feature that needs it, for the message.
        extra: Extra to install, for the message.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra(extra, purpose):
        import matplotlib.figure  # noqa: F401


def kernels_figure(kernels: NDArray[np.floating], sigmas: NDArray[np.floating]) -> Figure:
    """Draw the kernels of all steps as heat maps, above the curve of their sigmas.

    A single kernel is drawn without a curve. All maps share one colour scale. It is a root scale,
    because a kernel's peak falls with the square of its sigma: on a linear scale, a narrow kernel
    would leave the wide ones black.

    Args:
        kernels: Kernels `[t+1,k,k]` of steps 0..t.
        sigmas: Their sigmas `[t+1]` in HR pixels.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib("a figure of kernels")
    from matplotlib.figure import Figure

    columns = min(len(kernels), _COLUMNS)
    rows = -(-len(kernels) // columns)
    maps_height = rows * (_PANEL_INCHES + _TITLE_INCHES)
    if len(kernels) == 1:
        figure = Figure((1.8 * maps_height, 1.4 * maps_height), layout="constrained")
        _draw_kernels(figure, figure.subplots(1, 1, squeeze=False), kernels, sigmas)
        return figure
    width = max(_NARROWEST_INCHES, columns * _PANEL_INCHES + 1)
    figure = Figure((width, maps_height + _CURVE_INCHES), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(maps_height, _CURVE_INCHES))
    upper, lower = parts
    _draw_kernels(upper, upper.subplots(rows, columns, squeeze=False), kernels, sigmas)
    _draw_sigmas(lower.subplots(), sigmas)
    return figure


def save_figure(figure: Figure, path: str | PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all; its metadata names this software."""
    made_by = {"Software": _SOFTWARE}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DOTS_PER_INCH, format="png", backend="agg", metadata=made_by)


def is_saved_figure(path: str | PathLike[str]) -> bool:
    """Return whether a file is a PNG that `save_figure` wrote."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            return opened.info.get("Software") == _SOFTWARE
    except (OSError, ValueError, SyntaxError):
        return False


def style_axes(axes: Any) -> None:
    """Style axes that hold a curve or points: small ticks, a light horizontal grid, no box."""
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    _quiet(axes)


def _draw_kernels(
    figure: Any, axes: Any, kernels: NDArray[np.floating], sigmas: NDArray[np.floating]
) -> None:
    from matplotlib.colors import PowerNorm

    peak = float(kernels.max())
    norm = PowerNorm(_SCALE_POWER, vmin=0, vmax=peak)
    for panel in axes.flat:
        panel.set_axis_off()
    for step, (panel, kernel, sigma) in enumerate(zip(axes.flat, kernels, sigmas, strict=False)):
        heat_map = panel.imshow(np.maximum(kernel, 0), norm=norm, cmap="magma")
        panel.set_title(f"step {step}, sigma={sigma:.2f}", fontsize=8, color=INK, pad=4)
    scale = figure.colorbar(heat_map, ax=axes, shrink=0.85, aspect=12 * len(axes), pad=0.01)
    # Evenly spaced for the eye; round weights would crowd at the bright end.
    ticks = peak * np.linspace(0, 1, 5) ** (1 / _SCALE_POWER)
    scale.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    scale.set_label("weight", fontsize=8, color=INK)
    _quiet(scale.ax)
    scale.outline.set_visible(False)


def _draw_sigmas(axes: Any, sigmas: NDArray[np.floating]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.plot(sigmas, marker="o", markersize=4, linewidth=1.5, color=_CURVE_COLOUR)
    middle, reach = (sigmas.max() + sigmas.min()) / 2, np.ptp(sigmas) / 2
    # A flat curve must look flat, not like magnified noise.
    axes.set_ylim(middle - max(1.3 * reach, 0.1), middle + max(1.3 * reach, 0.1))
    axes.set_xlim(-0.4, len(sigmas) - 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("step", fontsize=8, color=INK)
    axes.set_ylabel("sigma in HR pixels", fontsize=8, color=INK)
    style_axes(axes)


def _quiet(axes: Any) -> None:
    axes.tick_params(labelsize=7, colors=INK, length=2, width=0.6)
