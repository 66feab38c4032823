"""Real LR/HR pairs, and LR images without HR images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ikc_deploy import Bundle, gaussian_kernel
from ikc_deploy.cli.ikc_eval import main
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.no_reference import blur_effect, consistency
from ikc_deploy.evaluation.pairs import PairSet, open_pairs
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.writing import write_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo


def put(root: Path, *names: str) -> None:
    for name in names:
        write_rgb(photo(10, 12) if "LR" in name or "x4" in name else photo(40, 48), root / name)


@pytest.mark.parametrize(
    ("lows", "highs"),
    [
        (["LR/a.png", "LR/b10.png"], ["HR/a.png", "HR/b10.png"]),
        (["LR/0801x4m.png", "LR/0802x4m.png"], ["HR/0801.png", "HR/0802.png"]),
        (["LR/0801x4w1.png", "LR/0801x4w2.png"], ["HR/0801.png", "HR/0801.png"]),
        (["LR/0801x4d.png"], ["HR/0801.png"]),
        (["LR/c_2_LR4.png", "LR/c_10_LR4.png"], ["HR/c_2_HR.jpg", "HR/c_10_HR.jpg"]),
        (["LR/img_001_SRF_4_LR.png"], ["HR/img_001_SRF_4_HR.png"]),
        (["both/c_1_LR4.png"], ["both/c_1_HR.png"]),
        (["both/1x4.png"], ["both/1.png"]),
    ],
)
def test_names_are_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lows: list[str], highs: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path(), *lows, *highs)
    found = PairSet.open(Path(lows[0]).parent, Path(highs[0]).parent, 4)
    assert [pair.lr.as_posix() for pair in found.pairs] == lows
    assert [pair.hr.as_posix() for pair in found.pairs] == highs


@pytest.mark.parametrize(
    ("lows", "highs", "words"),
    [
        (["a_LR.png"], ["b_HR.png"], "no HR image in 'HR' matches a_LR.png"),
        (["a_LR.png"], ["a_HR.png", "b_HR.png"], "no LR image in 'LR' matches b_HR.png"),
        (["a_LR.png"], ["a_HR.png", "a.png"], "match the same LR images"),
        (["ax3.png"], ["a.png"], "no HR image in 'HR' matches ax3.png"),
        (["a.png"], ["a.png"], "they have one size"),
        (["a_LR3.png"], ["a_LRx_HR.png"], "no HR image"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lows: list[str], highs: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path("LR"), *lows)
    put(Path("HR"), *highs)
    with pytest.raises(InputError, match=words):
        PairSet.open(Path("LR"), Path("HR"), 4)


def test_sizes_and_numbers_of_folders_must_fit(tmp_path: Path) -> None:
    write_rgb(photo(10, 12), tmp_path / "LR" / "a.png")
    for height, width, fits in ((40, 48, True), (43, 51, True), (44, 48, False), (39, 48, False)):
        write_rgb(photo(height, width), tmp_path / "HR" / "a.png")
        if fits:
            open_pairs([tmp_path / "LR"], [tmp_path / "HR"], 4)
        else:
            with pytest.raises(InputError, match="is 48x40"):
                open_pairs([tmp_path / "LR"], [tmp_path / "HR"], 4)
    with pytest.raises(InputError, match="give one --hr for each --lr"):
        open_pairs([tmp_path / "LR"], [tmp_path / "HR"] * 2, 4)


def test_pairs_that_were_made_by_the_protocol_measure_as_by_the_protocol(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    hr = photo(40, 48)
    write_rgb(hr, tmp_path / "HR" / "a.png")
    write_rgb(degrade_gaussian(hr, 2.6, 4), tmp_path / "LR" / "ax4.png")
    options = ("--bundle", small_bundle.path, "--iters", 1, "--json", tmp_path / "x.json")
    found = {}
    ways: dict[str, tuple[str | Path, ...]] = {
        "LR": ("--lr", tmp_path / "LR"),
        "HR": ("--sigma-list", "2.6"),
    }
    for name, more in ways.items():
        result = invoke(main, "--hr", tmp_path / "HR", *more, *options)
        assert result.exit_code == 0, result.output
        found[name] = json.loads((tmp_path / "x.json").read_text())["datasets"][name]
    assert found["LR"]["bicubic"] == found["HR"]["bicubic"]
    psnr = {key: [step["psnr_y"] for step in found[key]["steps"]] for key in found}
    assert psnr["LR"] == psnr["HR"]
    assert found["LR"]["true_kernel"] is None and found["LR"]["steps"][0]["sigma_mae"] is None
    pairs = ("--lr", tmp_path / "LR", "--hr", tmp_path / "HR", *options)
    border = invoke(main, *pairs, "--border", 12)
    assert border.exit_code == 0, border.output
    inner = json.loads((tmp_path / "x.json").read_text())["datasets"]["LR"]["bicubic"]
    assert inner["psnr_y"] != found["LR"]["bicubic"]["psnr_y"]
    assert_one_clear_line(invoke(main, *pairs, "--border", 19), "a border of 19", "a.png")
    for refused in ("--noise=3", "--sigma-list=2", "--per-sigma"):
        option = refused.partition("=")[0]
        assert_one_clear_line(invoke(main, *pairs, refused), "leave out", option)
    assert_one_clear_line(invoke(main, "--border", 3, "--hr", tmp_path / "HR"), "--border")
    assert_one_clear_line(invoke(main), "--hr DIR", "--lr DIR")


def test_without_hr_images_there_are_figures_of_the_outputs(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    write_rgb(photo(24, 30), tmp_path / "LR" / "a.png")
    files = ("--json", tmp_path / "x.json", "--csv", tmp_path / "x.csv")
    options = ("--lr", tmp_path / "LR", "--bundle", small_bundle.path, "--iters", 1)
    result = invoke(main, *options, *files)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "x.json").read_text())["datasets"]["LR"]
    assert [(row["method"], row["step"]) for row in rows] == [
        *(("bicubic", None), ("blind", 0), ("blind", 1))
    ]
    lines = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert float(lines[2]["blur_effect"]) == rows[2]["blur_effect"]
    assert f"{rows[1]['consistency']:.2f}" in result.stdout
    assert_one_clear_line(invoke(main, *options, "--plots", tmp_path / "p"), "without --hr")


def test_the_figures_move_as_they_state() -> None:
    hr = photo(64, 64)
    blurred = np.rint(gaussian_filter(hr.astype(float), (3, 3, 0))).astype(np.uint8)
    assert 0 <= blur_effect(hr) < blur_effect(blurred) <= 1
    assert blur_effect(np.full((32, 32, 3), 9, np.uint8)) == 1
    lr = degrade_gaussian(hr, 1.5, 4)
    right, wrong = (consistency(hr, lr, gaussian_kernel(s), 4) for s in (1.5, 3.5))
    assert right > 45 > wrong
