from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ikc_deploy import KernelBasis, MissingExtraError
from ikc_deploy.reporting.plotting import kernels_figure, require_matplotlib, save_figure

BASIS = KernelBasis.fit((0.2, 4.0))


def drawn(sigmas: list[float]) -> Any:
    values = np.array(sigmas)
    return kernels_figure(BASIS.decode(BASIS.code_of_sigma(values)), values)


@pytest.mark.parametrize("steps", [2, 8, 11])
def test_every_step_has_its_kernel_on_one_scale_and_its_sigma(steps: int) -> None:
    sigmas = np.linspace(1.0, 3.0, steps).tolist()
    axes = drawn(sigmas).axes
    maps = [panel for panel in axes if panel.get_title()]
    titles = [panel.get_title() for panel in maps]
    assert titles == [f"step {step}, sigma={sigma:.2f}" for step, sigma in enumerate(sigmas)]
    images = [panel.images[0] for panel in maps]
    assert {(image.norm.vmin, image.norm.vmax) for image in images} == {
        (0, max(image.get_array().max() for image in images))
    }
    for image, sigma in zip(images, sigmas, strict=True):
        profile = np.exp(-0.5 * (np.arange(-10, 11) / sigma) ** 2)
        kernel = np.outer(profile, profile) / profile.sum() ** 2
        np.testing.assert_allclose(image.get_array(), kernel, atol=2e-3)
    (curve,) = (line for panel in axes for line in panel.lines)
    np.testing.assert_allclose(curve.get_ydata(), sigmas)


def test_a_single_kernel_has_no_curve() -> None:
    assert not any(panel.lines for panel in drawn([2.0]).axes)


def test_a_figure_is_written_whole(tmp_path: Path) -> None:
    figure = drawn([1.0, 2.0, 2.2])
    save_figure(figure, tmp_path / "new" / "kernels.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kernels.png"]
    with Image.open(tmp_path / "new" / "kernels.png") as image:
        assert image.width > 600 and image.height > 400
        # Title and labels are ink on white; the maps are dark.
        assert image.convert("L").getextrema() == (0, 255)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingExtraError, match=r"--save-steps needs .*'ikc-deploy\[evaluation\]'"):
        require_matplotlib("--save-steps")
