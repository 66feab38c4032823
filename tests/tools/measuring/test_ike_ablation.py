from __future__ import annotations

import json
from pathlib import Path

import pytest

from ikc_deploy.evaluation.filters import median
from ikc_deploy.imaging.metrics import psnr_y, ssim_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import quantize, resize_bicubic, upscale_bicubic
from ikc_deploy.imaging.writing import write_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo
from tools.measure_ike_ablation import main

SMALL = ("--iterations", 8, "--crop", 32, "--growth", 2, "--width", 4)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_rgb(photo(90, 100), tmp_path / "hr.png")
    return tmp_path / "hr.png"


def test_every_row_is_measured_like_the_other_figures(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place = ("--image", image, "--top", 4, "--left", 7, "--side", 71)
    result = invoke(main, *place, *SMALL, "--json", out / "a.json", "--images", out / "images")
    assert result.exit_code == 0, result.output
    found = json.loads((out / "a.json").read_text())
    assert found["machine"]["cpu"] and found["settings"]["iterations"] == 8
    names = ["none", "energy", "tri channel", "bicubic residual", "csr backward", "interpolation"]
    assert [row["name"].removeprefix("+ ") for row in found["rows"]] == names
    hr = photo(90, 100)[4:74, 7:77]
    lr = quantize(resize_bicubic(median(hr, 2), 0.5))
    assert found["bicubic"]["psnr_y"] == pytest.approx(psnr_y(upscale_bicubic(lr, 2), hr, 2))
    for name, row in zip(names, found["rows"], strict=True):
        written = read_rgb(out / "images" / f"{name.replace(' ', '-')}.png")
        assert (row["psnr_y"], row["ssim_y"]) == pytest.approx(
            (psnr_y(written, hr, 2), ssim_y(written, hr, 2))
        )
        assert len(row["psnr_on_the_way"]) == 9
        assert row["psnr_on_the_way"][-1] == row["psnr_y"]
        assert row["processor_seconds"] > 0
    # Every other pixel alone is black between; the bicubic residual begins as bicubic.
    first, full = (found["rows"][index]["psnr_on_the_way"][0] for index in (0, -1))
    assert first + 5 < found["bicubic"]["psnr_y"] < full + 1
    assert found["rows"][0]["psnr_y"] + 5 < found["rows"][-1]["psnr_y"]


def test_the_figures_in_the_docs_are_those_that_were_measured(repository: Path) -> None:
    found = json.loads((repository / "benchmarks" / "results" / "ike-ablation.json").read_text())
    text = (repository / "docs" / "offline.md").read_text()
    assert f"bicubic {found['bicubic']['psnr_y']:.2f}" in text
    for row in found["rows"]:
        way = row["psnr_on_the_way"]
        assert f"| {way[0]:.2f} | {way[1]:.2f} | {way[-1]:.2f} | {row['ssim_y']:.3f} |" in text
    assert found["rows"][-1]["psnr_y"] - found["rows"][0]["psnr_y"] >= 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--side", 91), "the crop is not inside"),
        (("--side", 64, "--top", -1), "invalid crop"),
        (("--side", 64, "--iterations", 9), "a multiple of 8"),
        (("--side", 32), "16x16 pixels"),
        (("--side", 64, "--scale", 3), "not x3"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    image: Path, tmp_path: Path, options: tuple[str | int, ...], words: str
) -> None:
    place = ("--image", image, "--top", 0, "--left", 0, "--json", tmp_path / "a.json")
    assert_one_clear_line(invoke(main, *place, *SMALL, *options), words)
    assert not (tmp_path / "a.json").exists()
