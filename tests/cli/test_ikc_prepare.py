from __future__ import annotations

import json
from pathlib import Path

import pytest

from ikc_deploy.cli.ikc_prepare import main
from ikc_deploy.imaging.writing import write_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for seed in range(2):
        write_rgb(photo(36, 40, seed), tmp_path / "source" / f"{seed}.png")
    return tmp_path / "source"


def test_a_folder_and_a_file_are_prepared_and_the_result_is_said(
    source: Path, tmp_path: Path
) -> None:
    write_rgb(photo(40, 40), tmp_path / "more.png")
    out = tmp_path / "out"
    result = invoke(main, source, tmp_path / "more.png", "-o", out, "--scale", 2, "--sigma", 1.5)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert str(out) in result.stdout and "images: 3" in result.stdout
    sigmas = json.loads((out / "kernels" / "x2.json").read_text())
    assert sigmas == {"0": 1.5, "1": 1.5, "more": 1.5}
    assert {path.name for path in (out / "LRblur" / "x2").iterdir()} == {
        "0.png",
        "1.png",
        "more.png",
    }


def test_a_range_and_a_seed_reach_the_sigmas(source: Path, tmp_path: Path) -> None:
    arguments = ("--sigma-range", 1.8, 3.2, "--seed")
    for seed in (0, 1):
        result = invoke(main, source, "-o", tmp_path / f"out{seed}", *arguments, seed)
        assert result.exit_code == 0, result.output
    first, second = (
        json.loads((tmp_path / f"out{seed}" / "kernels" / "x4.json").read_text()) for seed in (0, 1)
    )
    assert all(1.8 <= sigma <= 3.2 for sigma in (*first.values(), *second.values()))
    assert first != second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sigma", 1, "--sigma-range", 1, 2), "--sigma or --sigma-range, not both"),
        (("--sigma", 0), "got 0 to 0"),
        (("--scale", 7), "one of [2, 3, 4], got 7"),
    ],
)
def test_impossible_options_are_one_line(
    source: Path, tmp_path: Path, options: tuple[str | float, ...], words: str
) -> None:
    assert_one_clear_line(invoke(main, source, "-o", tmp_path / "out", *options), words)
    assert not (tmp_path / "out").exists()


def test_missing_sources_are_one_line(tmp_path: Path) -> None:
    result = invoke(main, tmp_path / "gone", "-o", tmp_path / "out")
    assert_one_clear_line(result, f"no image or folder '{tmp_path / 'gone'}'")


def test_an_image_that_cannot_be_read_is_one_line(source: Path, tmp_path: Path) -> None:
    (source / "torn.png").write_bytes(b"no image")
    assert_one_clear_line(invoke(main, source, "-o", tmp_path / "out"), str(source / "torn.png"))
