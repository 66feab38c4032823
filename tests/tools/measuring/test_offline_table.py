from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tools.measure_offline_table import main


def test_every_method_gets_the_same_picture_and_the_figures_are_those_of_the_files(
    repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out.json"
    crop = ("--image", repository / "samples" / "kodim23.png", "--side", 96)
    small = "ike:iterations=8,crop=32,growth=4,width=8"
    files = ("--json", path, "--images", tmp_path / "images")
    arguments = (*crop, "--degradation", "median", "--method", small, *files)
    result = invoke(main, *arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert report["plan"]["image"] == "kodim23.png"
    rows = {row["method"]: row for row in report["rows"]}
    assert list(rows) == ["bicubic", "ikc", "ike"]
    hr = read_rgb(tmp_path / "images" / "HR.png")
    for name, row in rows.items():
        image = read_rgb(tmp_path / "images" / f"{name}.png")
        assert row["psnr_y"] == pytest.approx(psnr_y(image, hr, 2))
    # A median of 3x3 is close enough to a Gaussian for IKC to gain.
    assert rows["ikc"]["psnr_y"] > rows["bicubic"]["psnr_y"] + 1
    assert rows["ike"]["iterations"] == 8
    # What was measured is not measured again.
    assert invoke(main, *arguments).exit_code == 0
    assert json.loads(path.read_text())["rows"] == report["rows"]


def test_the_figures_in_the_docs_are_those_that_were_measured(repository: Path) -> None:
    text = (repository / "docs" / "offline.md").read_text()
    reports = sorted((repository / "benchmarks" / "results").glob("offline-table-*.json"))
    assert reports
    for path in reports:
        report = json.loads(path.read_text())
        cells = [f"{row['psnr_y']:.2f}, {row['ssim_y']:.3f}" for row in report["rows"]]
        assert f"| `{report['plan']['degradation']}` | {' | '.join(cells)} |" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "magic"), "unknown method 'magic'"),
        (("--method", "ike:crop=big"), "NAME:SETTING=NUMBER"),
        (("--top", 500), "is not inside"),
        (("--json", "LIST"), "not a report of this command"),
    ],
)
def test_bad_input_is_one_clear_line(
    repository: Path, tmp_path: Path, arguments: tuple[Any, ...], words: str
) -> None:
    (tmp_path / "list.json").write_text("[1]")
    arguments = tuple(tmp_path / "list.json" if word == "LIST" else word for word in arguments)
    image = ("--image", repository / "samples" / "kodim23.png")
    options = ("--degradation", "median", "--json", tmp_path / "out.json")
    assert_one_clear_line(invoke(main, *image, *options, *arguments), words)
