"""Plot the kernels of a kernel prior: along a square in z, and random samples.

    python training/manifold.py docs/images/fkp_manifold.png

The corners of the square are true kernels; z between them is interpolated along the sphere on which
methods that fit a kernel search. Every panel has its own brightness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.kernels import shifted_gaussian
from ikc_deploy.networks.flow import KernelFlow, load_flow
from ikc_deploy.reporting.plotting import INK, require_matplotlib, save_figure

_SIDE = 7
"""Number of kernels along a side of the square."""

_WIDE, _NARROW = 0.85, 0.12
"""Variances of the corners, as shares of the family's largest."""


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scale", default=4, show_default=True)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights instead of the shipped ones."
)
def main(out: Path, scale: int, weights: Path | None) -> None:
    """Write the plot OUT (PNG)."""
    require_matplotlib("the plot of a manifold")
    from matplotlib.figure import Figure

    flow = load_flow(scale, weights)
    figure = Figure((9.2, 4.9), layout="constrained")
    parts: Any = figure.subfigures(1, 2, wspace=0.04)
    drawn = flow.sample(_SIDE**2, torch.Generator().manual_seed(0))
    _panels(parts[0], square(flow), f"x{scale}: between four true kernels (the corners)")
    _panels(parts[1], drawn.numpy(), f"x{scale}: drawn at random")
    save_figure(figure, out)


def square(flow: KernelFlow) -> NDArray[np.float32]:
    """Return kernels `[_SIDE**2,k,k]`: two corners are isotropic, two are crossed ellipses."""
    top = 2.5 * flow.scale
    wide, narrow = _WIDE * top, _NARROW * top
    corners = [
        _z(flow, narrow, narrow, 0.0),
        _z(flow, wide, narrow, 0.25 * np.pi),
        _z(flow, wide, narrow, 0.75 * np.pi),
        _z(flow, wide, wide, 0.0),
    ]
    steps = torch.linspace(0, 1, _SIDE)
    rows = [
        _between(_between(corners[0], corners[1], t), _between(corners[2], corners[3], t), s)
        for s in steps
        for t in steps
    ]
    return flow.decode(torch.stack(rows)).numpy()


def _z(flow: KernelFlow, variance1: float, variance2: float, theta: float) -> Tensor:
    kernel = torch.from_numpy(shifted_gaussian(variance1, variance2, theta, flow.scale))
    # The mean of the noise in the flow's training.
    logits = flow.logits(kernel[None], torch.full_like(kernel, 0.5)[None]).float()
    return flow.encode(logits)[0][0]


def _between(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Interpolate along the great circle, with linear radius."""
    radii = first.norm(), second.norm()
    units = first / radii[0], second / radii[1]
    angle = torch.acos((units[0] @ units[1]).clamp(-1, 1))
    weights = torch.sin((1 - share) * angle), torch.sin(share * angle)
    direction = (weights[0] * units[0] + weights[1] * units[1]) / torch.sin(angle)
    return ((1 - share) * radii[0] + share * radii[1]) * direction


def _panels(part: Any, kernels: NDArray[np.float32], title: str) -> None:
    part.suptitle(title, fontsize=9, color=INK)
    grid = part.subplots(_SIDE, _SIDE)
    for panel, kernel in zip(grid.flat, kernels, strict=True):
        panel.set_axis_off()
        panel.imshow(kernel, cmap="magma", vmin=0)


if __name__ == "__main__":
    main()
