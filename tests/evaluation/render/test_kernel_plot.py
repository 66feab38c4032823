"""The figure of true and estimated kernels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Ellipse

from ikc_deploy import gaussian_kernel
from ikc_deploy.evaluation.protocol import KernelExample
from ikc_deploy.evaluation.render.kernel_plot import kernels_figure_of
from ikc_deploy.kernels import anisotropic_kernel


def test_every_kernel_is_drawn_with_its_axes_and_angle() -> None:
    # The direction is clockwise on the screen: 0.5 radians down is 180 - 28.6 degrees.
    true = anisotropic_kernel(3, 1.5, 0.5, 21)
    steps = np.stack([gaussian_kernel(2.0), gaussian_kernel(2.5)])
    figure = kernels_figure_of([KernelExample("a$b.png", "ellipse", true, steps)])
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["true", "step 0", "step 1"]
    assert panels[0].get_xlabel().startswith("3.00 x 1.50, 151")
    assert panels[1].get_xlabel() == "2.00 x 2.00"
    (drawn,) = (patch for patch in panels[0].patches if isinstance(patch, Ellipse))
    assert drawn.center == pytest.approx((10, 10), abs=1e-6)
    # In pixels whose rows run down, matplotlib's angle is the direction itself.
    assert np.degrees(0.5) == pytest.approx(drawn.angle % 180, abs=0.1)
    assert (drawn.width, drawn.height) == pytest.approx((6, 3), rel=0.01)
    figure.canvas.draw()


def test_many_steps_are_the_first_and_the_last() -> None:
    steps = np.stack([gaussian_kernel(2.0)] * 20)
    figure = kernels_figure_of([KernelExample("a", "b", gaussian_kernel(2.0), steps)])
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == 10 and titles[-1] == "step 19"
