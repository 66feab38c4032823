from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ikc_deploy.imaging.picture import Metadata, Picture
from ikc_deploy.imaging.reading import read_picture, read_rgb
from ikc_deploy.offline.optimize import FitResult, Losses
from ikc_deploy.offline.outputs import history_figure, kernel_image, write_result
from tests.offline.test_forward_model import lopsided
from tests.samples import photo

HISTORY: list[Losses] = [{"loss": 2.0}, {"loss": 1.5, "late": -1.0}, {"loss": 1.0, "late": 0.5}]


def test_every_part_of_a_result_can_be_read_again(tmp_path: Path) -> None:
    kernel = lopsided(11)
    result = FitResult(photo(20, 24), kernel, HISTORY, complete=True)
    paths = write_result(tmp_path / "out", result, Picture(photo(10, 12)))
    assert {path.name for path in paths} == {
        "image.png",
        "kernel.npy",
        "kernel.png",
        "history.csv",
        "history.png",
    }
    np.testing.assert_array_equal(read_rgb(tmp_path / "out" / "image.png"), result.image)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "kernel.npy"), kernel)
    with (tmp_path / "out" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    assert [row["late"] for row in rows] == ["", "-1.0", "0.5"]
    with Image.open(tmp_path / "out" / "history.png") as figure:
        assert min(figure.size) > 100


def test_without_a_kernel_and_a_step_there_is_only_the_image(tmp_path: Path) -> None:
    paths = write_result(tmp_path, FitResult(photo(8, 8), None, [], False), Picture(photo(4, 4)))
    assert [path.name for path in paths] == ["image.png"]


def test_grey_and_the_colour_space_are_those_of_the_lr_image(tmp_path: Path) -> None:
    colours = ((b"gAMA", (45000).to_bytes(4)),)
    like = Picture(photo(4, 4), grey=True, metadata=Metadata(colour_chunks=colours))
    write_result(tmp_path, FitResult(photo(8, 8), None, [], False), like)
    written = read_picture(tmp_path / "image.png")
    assert written.grey and written.metadata.colour_chunks == colours


def test_a_kernels_picture_has_its_peak_white_and_every_pixel_a_square() -> None:
    kernel = lopsided(11)
    picture = kernel_image(kernel)
    factor = 320 // 11
    assert picture.shape == (11 * factor, 11 * factor, 3)
    small = picture[::factor, ::factor, 0]
    assert small.max() == 255
    np.testing.assert_allclose(small / 255, kernel / kernel.max(), atol=0.5 / 255 + 1e-9)


def test_losses_have_a_panel_each_logarithmic_where_they_can_be() -> None:
    loss, late = (axes for axes in history_figure(HISTORY).axes if axes.get_title())
    assert (loss.get_yscale(), late.get_yscale()) == ("log", "linear")
    np.testing.assert_array_equal(late.lines[0].get_xdata(), [2, 3])
