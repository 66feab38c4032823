"""A figure of true and estimated blur kernels: true, then steps 0 to t, a row for each blur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.evaluation.protocol import KernelExample
from ikc_deploy.kernels import ellipse_of_kernel
from ikc_deploy.reporting.plotting import INK, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_INCHES: Final = 1.15
_CAPTION_INCHES: Final = 0.45
_SCALE_POWER: Final = 1 / 3
_MAX_STEPS: Final = 9
_OUTLINE: Final = "#4fd0ff"


def kernels_figure_of(examples: Sequence[KernelExample]) -> Figure:
    """Draw true kernels beside those of the steps, with the ellipse of each at one sigma.

    Below a kernel are its sigmas along both axes, in HR pixels, and the angle of the long one, in
    degrees from the horizontal, counterclockwise; names of Ellipses8 count clockwise. Each row has
    its own root colour scale. Of more than 9 steps, the first ones and the last are drawn.

    Args:
        examples: Kernels of one image under each blur; at least one.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib("a plot")
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    steps = _drawn(len(examples[0].estimated))
    width, height = _PANEL_INCHES * (1 + len(steps)), _PANEL_INCHES + _CAPTION_INCHES
    figure = Figure((width + 0.9, height * len(examples) + 0.5), layout="constrained")
    title = f"{examples[0].image}: true and estimated kernels".replace("$", r"\$")
    figure.suptitle(title, fontsize=9, color=INK)
    axes: Any = figure.subplots(len(examples), 1 + len(steps), squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        kernels = [example.true, *(example.estimated[step] for step in steps)]
        norm = PowerNorm(_SCALE_POWER, vmin=0, vmax=max(float(kernel.max()) for kernel in kernels))
        for panel, kernel in zip(row, kernels, strict=True):
            panel.imshow(np.maximum(kernel, 0), norm=norm, cmap="magma")
            _draw_ellipse(panel, kernel)
        row[0].set_ylabel(example.blur, fontsize=8, color=INK)
    for panel, name in zip(axes[0], ["true", *(f"step {step}" for step in steps)], strict=True):
        panel.set_title(name, fontsize=8, color=INK, pad=4)
    return figure


def _drawn(count: int) -> list[int]:
    """Return the steps to draw."""
    if count <= _MAX_STEPS:
        return list(range(count))
    return [*range(_MAX_STEPS - 1), count - 1]


def _draw_ellipse(panel: Any, kernel: NDArray[np.floating]) -> None:
    """Draw the ellipse at one sigma with its axes, and write its numbers below."""
    from matplotlib.patches import Ellipse

    found = ellipse_of_kernel(kernel)
    side = len(kernel)
    # Rows of an image run down, angles counterclockwise.
    turn = np.radians(-found.angle)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    weight = np.maximum(kernel, 0) / np.maximum(kernel, 0).sum()
    rows, columns = np.mgrid[:side, :side]
    middle = np.array([(columns * weight).sum(), (rows * weight).sum()])
    panel.add_patch(
        Ellipse(
            (float(middle[0]), float(middle[1])),
            2 * found.long,
            2 * found.short,
            angle=-found.angle,
            fill=False,
            edgecolor=_OUTLINE,
            linewidth=1.0,
        )
    )
    for axis, reach in ((along, found.long), (across, found.short)):
        ends = np.stack([middle - reach * axis, middle + reach * axis])
        panel.plot(ends[:, 0], ends[:, 1], color=_OUTLINE, linewidth=0.7)
    panel.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), xticks=[], yticks=[])
    for spine in panel.spines.values():
        spine.set_visible(False)
    text = f"{found.long:.2f} x {found.short:.2f}"
    # A circle has no direction.
    if found.long > _ROUND * found.short:
        text += f", {found.angle:.0f}°"
    panel.set_xlabel(text, fontsize=7, color=INK, labelpad=2)


_ROUND: Final = 1.03
"""Ratio of the axes up to which a kernel counts as round."""
