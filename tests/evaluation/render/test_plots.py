from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ikc_deploy.errors import OutputError
from ikc_deploy.evaluation.render.plots import curve_figure, save_plots, sigma_figure
from ikc_deploy.evaluation.summary import summarise
from tests.evaluation.recorded import records


def test_each_dataset_has_its_curve_between_its_two_marks() -> None:
    panels = curve_figure(summarise(records())).axes
    assert [panel.get_title() for panel in panels] == ["Set5", "One"]
    for panel, level in zip(panels, (29 + 5 / 6, 24.5), strict=True):
        lines = {line.get_label(): np.asarray(line.get_ydata()) for line in panel.lines}
        np.testing.assert_allclose(lines["blind"], [level, level + 0.1, level + 0.2])
        np.testing.assert_allclose(lines["predictor only"], level)
        np.testing.assert_allclose(lines["true kernel"], level + 1)
        low, high = panel.get_ylim()
        assert low < level and level + 1 < high
    spans = [np.ptp(panel.get_ylim()) for panel in panels]
    assert spans[0] == pytest.approx(spans[1])


def test_the_scatter_has_the_last_estimates_on_equal_axes() -> None:
    (axes,) = sigma_figure(list(records())).axes
    points = {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}
    assert list(points) == ["Set5", "One", "estimate = truth"]
    np.testing.assert_allclose(points["One"], [(1.8, 2.1), (2.6, 2.9)])
    assert len(points["Set5"]) == 6
    identity = points["estimate = truth"]
    np.testing.assert_array_equal(identity[:, 0], identity[:, 1])
    assert axes.get_xlim() == axes.get_ylim()


def test_plots_are_png_files_and_there_is_none_of_sigma_without_sigmas(tmp_path: Path) -> None:
    for gaussian, names in ((True, ["psnr.png", "sigma.png"]), (False, ["psnr.png"])):
        folder = tmp_path / str(gaussian)
        found = list(records(gaussian))
        assert [path.name for path in save_plots(folder, summarise(found), found)] == names
        assert sorted(path.name for path in folder.iterdir()) == names
        for name in names:
            with Image.open(folder / name) as image:
                assert image.format == "PNG" and min(image.size) > 300
                assert image.convert("L").getextrema()[1] == 255


def test_a_folders_name_is_no_formula(tmp_path: Path) -> None:
    named = [type(r)(**{**vars(r), "dataset": r"$\nope$"}) for r in records()]
    assert len(save_plots(tmp_path, summarise(named), named)) == 2


def test_pictures_that_are_no_plots_of_ours_are_not_written_over(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "sigma.png")
    found, without = list(records()), list(records(gaussian=False))
    before = (tmp_path / "sigma.png").read_bytes()
    with pytest.raises(OutputError, match=r"sigma\.png' was not written by ikc-deploy"):
        save_plots(tmp_path, summarise(found), found)
    assert [path.name for path in tmp_path.iterdir()] == ["sigma.png"]
    assert (tmp_path / "sigma.png").read_bytes() == before
    (tmp_path / "sigma.png").unlink()
    save_plots(tmp_path, summarise(found), found)
    save_plots(tmp_path, summarise(without), without)
    assert [path.name for path in tmp_path.iterdir()] == ["psnr.png"]
