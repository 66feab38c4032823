from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from ikc_deploy import Bundle, gaussian_kernel
from ikc_deploy.cli.ikc_eval import main
from ikc_deploy.evaluation.blurs import BlurSet
from ikc_deploy.imaging.degrade import SIGMAS
from ikc_deploy.imaging.writing import write_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo
from tests.sealing import seal

ONE = ("--sigma-list", "2.6")
"""One sigma is enough where figures do not matter."""


@pytest.fixture
def hr(tmp_path: Path) -> Path:
    write_rgb(photo(36, 40), tmp_path / "Tiny[1]" / "image.png")
    return tmp_path / "Tiny[1]"


def test_the_table_has_every_row_and_the_json_file_its_figures(
    small_bundle: Bundle, hr: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    arguments = ("--bundle", small_bundle.path, "--iters", 2, "--threads", 1, "--json", figures)
    result = invoke(main, "--hr", hr, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    values = json.loads(figures.read_text())
    assert (values["protocol"], values["noise"], values["jpeg"]) == ("gaussian8", 0, None)
    dataset = values["datasets"]["Tiny[1]"]
    assert [blur["sigma"] for blur in dataset["blurs"]] == list(SIGMAS[4])
    assert "Tiny[1] (images: 1), Gaussian8 x4: small\n" in result.stdout
    rows = {"bicubic": dataset["bicubic"], "true kernel": dataset["true_kernel"]}
    rows |= {f"step {step['step']}": step for step in dataset["steps"]}
    assert list(rows) == ["bicubic", "true kernel", "step 0", "step 1", "step 2"]
    for label, row in rows.items():
        (line,) = (line for line in result.stdout.splitlines() if line.strip().startswith(label))
        cells = [f"{row['psnr_y']:.2f}", f"{row['ssim_y']:.4f}"]
        if "sigma_mae" in row:
            cells += [f"{row['sigma_mae']:.3f}", f"{row['kernel_psnr']:.1f}"]
        assert line.split()[-len(cells) :] == cells


def test_crops_are_measured_where_they_are_asked_for(small_bundle: Bundle, tmp_path: Path) -> None:
    write_rgb(photo(384, 400), tmp_path / "Large" / "image.png")
    arguments = ("--hr", tmp_path / "Large", "--bundle", small_bundle.path, "--iters", 1, *ONE)
    full = invoke(main, *arguments, "--json", "-")
    crops = invoke(main, *arguments, "--json", "-", "--estimate", "crops")
    assert crops.exit_code == 0, crops.output
    found = [json.loads(result.stdout) for result in (full, crops)]
    assert [each["estimate"] for each in found] == ["full", "crops"]
    steps = [each["datasets"]["Large"]["steps"] for each in found]
    # The predictor sees the whole frame either way; the corrector sees crops.
    assert steps[0][0] == pytest.approx(steps[1][0], abs=1e-4)
    assert steps[0][1] != steps[1][1]
    table = invoke(main, *arguments, "--estimate", "crops")
    assert "Gaussians x4: small, crops" in table.stdout


def test_two_folders_and_every_output(small_bundle: Bundle, hr: Path, tmp_path: Path) -> None:
    write_rgb(photo(32, 36, seed=1), tmp_path / "More" / "a.png")
    write_rgb(photo(36, 32, seed=2), tmp_path / "More" / "b.png")
    out = tmp_path / "out"
    result = invoke(
        main,
        *("--hr", hr, "--hr", tmp_path / "More", "--bundle", small_bundle.path, "--iters", 1),
        *("--threads", 1, "--sigma-list", "2.6, 1.8", "--noise", 5, "--jpeg", 70, "--per-sigma"),
        *("--json", out / "a.json", "--csv", out / "a.csv", "--markdown", out / "a.md"),
        *("--plots", out / "plots"),
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == [
        "a.csv",
        "a.json",
        "a.md",
        "plots/kernels.png",
        "plots/psnr.png",
        "plots/sigma.png",
    ]
    values = json.loads((out / "a.json").read_text())
    assert (values["protocol"], values["noise"], values["jpeg"]) == ("gaussians", 5, 70)
    more = values["datasets"]["More"]
    lines = list(csv.DictReader((out / "a.csv").open()))
    # 3 images, 2 sigmas, 4 rows: bicubic, two steps, true kernel.
    assert len(lines) == 24 and {line["jpeg"] for line in lines} == {"70"}
    mine = [
        float(line["psnr_y"]) for line in lines if (line["dataset"], line["step"]) == ("More", "1")
    ]
    assert more["steps"][1]["psnr_y"] == pytest.approx(sum(mine) / 4)
    low, high = more["steps"][1]["psnr_y_95"]
    images = (sum(mine[:2]) / 2, sum(mine[2:]) / 2)
    # Of two images, a resample is often one of them twice.
    assert (low, high) == pytest.approx((min(images), max(images)))
    titles = [line for line in result.stdout.splitlines() if ":" in line and "step 0" not in line]
    assert titles[0] == "Tiny[1] (images: 1), Gaussians x4, noise 5, JPEG 70: small"
    assert [title.partition(" by")[0] for title in titles[5:]] == [
        "More: PSNR-Y dB",
        "More: sigma MAE",
        "More: kernel dB",
    ]
    row = next(line for line in result.stdout.splitlines() if line.strip().startswith("sigma 2.6"))
    assert f"| {' | '.join(['sigma 2.6', *row.split()[2:]])} |" in (out / "a.md").read_text()


def test_kernels_of_a_file_blur_instead(small_bundle: Bundle, hr: Path, tmp_path: Path) -> None:
    kernels = np.stack([gaussian_kernel(2.0), np.eye(21) / 21])
    np.savez(tmp_path / "measured.npz", kernels=kernels)
    result = invoke(
        main,
        *("--hr", hr, "--bundle", small_bundle.path, "--iters", 0, "--threads", 1),
        *("--kernels", tmp_path / "measured.npz", "--json", "-"),
    )
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["protocol"], values["kernels_file"]) == ("kernels", "measured.npz")
    first, second = values["datasets"]["Tiny[1]"]["blurs"]
    assert first["sigma"] == pytest.approx(2.0) and first["steps"][0]["sigma_mae"] is not None
    assert second["sigma"] is second["steps"][0]["sigma_mae"] is None
    assert second["steps"][0]["kernel_psnr"] > 0


def test_ellipses8_is_printed_as_csv_alone(small_bundle: Bundle, hr: Path) -> None:
    options = ("--hr", hr, "--bundle", small_bundle.path, "--iters", 0, "--threads", 1)
    result = invoke(main, *options, "--ellipses8", "--csv", "-")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert {row["blur"] for row in rows} == {blur.name for blur in BlurSet.ellipses8(4).blurs}
    both = invoke(main, *options, "--csv", "-", "--markdown", "-")
    assert both.exit_code == 2 and "only one of --csv and --markdown" in both.stderr


@pytest.mark.parametrize("name", ["anisotropic-diffusion", "random"])
def test_a_degradation_takes_the_place_of_blurs(small_bundle: Bundle, hr: Path, name: str) -> None:
    options = ("--hr", hr, "--bundle", small_bundle.path, "--iters", 0, "--threads", 1)
    result = invoke(main, *options, "--degradation", name, "--seed", 3, "--json", "-")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    dataset = values["datasets"]["Tiny[1]"]
    names = [blur["name"] for blur in dataset["blurs"]]
    assert (values["protocol"], values["seed"]) == (name, 3)
    assert dataset["steps"][0]["sigma_mae"] is None
    if name == "random":
        assert names == [f"random {index}" for index in range(8)]
        assert dataset["true_kernel"] is not None
        assert dataset["steps"][0]["kernel_psnr"] is not None
    else:
        assert names == [name]
        assert dataset["true_kernel"] is dataset["steps"][0]["kernel_psnr"] is None
        table = invoke(main, *options, "--degradation", name, "--per-sigma").stdout
        assert "Tiny[1] (images: 1), Anisotropic-diffusion x4: small" in table
        assert "sigma" not in table and "kernel" not in table


@pytest.mark.parametrize(
    ("options", "spec"), [((), "x4-lite"), (("--weights", "random:x4"), "random:x4")]
)
def test_weights_come_from_the_cache_and_a_dash_prints_json_alone(
    small_bundle: Bundle,
    hr: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    spec: str,
) -> None:
    cached = {spec: small_bundle}
    monkeypatch.setattr(
        "ikc_deploy.cli._bundle_options.default_bundle", lambda name, _: cached[name]
    )
    result = invoke(main, "--hr", hr, *options, "--iters", 0, "--scale", 4, "--json", "-", *ONE)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    values = json.loads(result.stdout)
    assert values["weights"] == small_bundle.manifest.name
    assert [step["step"] for step in values["datasets"]["Tiny[1]"]["steps"]] == [0]


def test_random_weights_are_measured_with_a_warning(
    small_bundle: Bundle, hr: Path, tmp_path: Path
) -> None:
    folder = copytree(small_bundle.path, tmp_path / "random")
    seal(folder, replace(small_bundle.manifest, random_weights=True))
    result = invoke(main, "--hr", hr, "--bundle", folder, "--iters", 0, "--json", "-", *ONE)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scale"] == 4
    assert len(result.stderr.splitlines()) == 1
    assert "warning:" in result.stderr and "random weights" in result.stderr


def test_bundle_and_weights_together_are_one_line(hr: Path) -> None:
    result = invoke(main, "--hr", hr, "--weights", "x4-lite", "--bundle", hr)
    assert_one_clear_line(result, "--weights or --bundle, not both")


def test_another_scale_than_the_weights_is_one_line(small_bundle: Bundle, hr: Path) -> None:
    result = invoke(main, "--hr", hr, "--bundle", small_bundle.path, "--scale", 2)
    assert_one_clear_line(result, "upscales x4, not x2")


def test_unknown_weights_are_one_line(hr: Path) -> None:
    assert_one_clear_line(invoke(main, "--hr", hr, "--weights", "nope"), "unknown weights 'nope'")


def test_an_image_that_cannot_be_read_is_one_line(small_bundle: Bundle, hr: Path) -> None:
    (hr / "torn.png").write_bytes((hr / "image.png").read_bytes()[:200])
    result = invoke(main, "--hr", hr, "--bundle", small_bundle.path)
    assert_one_clear_line(result, str(hr / "torn.png"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--sigma-list", "1.8;2.6"),
            "invalid --sigma-list '1.8;2.6': expected numbers with commas",
        ),
        (("--sigma-list", "1.8,"), "invalid --sigma-list '1.8,'"),
        (("--sigma-list", ""), "at least one sigma"),
        (("--sigma-list", "2.6,2.6"), "sigma 2.6 is given twice"),
        (("--sigma-list", "-1"), "sigma must be positive"),
        (("--sigma-list", "2.6", "--kernels", "k.npz"), "only one of --sigma-list and --kernels"),
        (("--ellipses8", "--kernels", "k.npz"), "only one of --ellipses8 and --kernels"),
        (("--degradation", "median", "--kernels", "k.npz"), "only one of --kernels and --degr"),
        (("--degradation", "random", "--sigma-list", "2"), "only one of --sigma-list and --degr"),
        (("--kernels", "kernels.mat"), "not a .npy or .npz file"),
        (("--jpeg", 101), "JPEG quality must be 1 to 100"),
        (("--json", "x", "--csv", "./x"), "--json, --csv must be different files"),
    ],
)
def test_bad_settings_are_one_line_before_a_bundle_is_opened(
    tmp_path: Path, options: tuple[str | int, ...], words: str
) -> None:
    result = invoke(main, "--hr", tmp_path, "--bundle", tmp_path / "none", *options)
    assert_one_clear_line(result, words)


def test_a_sigma_beyond_the_weights_is_one_line(small_bundle: Bundle, hr: Path) -> None:
    result = invoke(main, "--hr", hr, "--bundle", small_bundle.path, "--sigma-list", "1.8,4.5")
    assert_one_clear_line(result, "covers sigma 0.2 to 4", "sigma 4.5")


@pytest.mark.parametrize("option", ["--json", "--csv", "--markdown"])
def test_a_folder_for_a_file_is_refused_before_the_measurement(
    hr: Path, tmp_path: Path, option: str
) -> None:
    result = invoke(main, "--hr", hr, option, tmp_path)
    assert_one_clear_line(result, f"'{tmp_path}'", "it is a folder")


def test_a_file_for_the_plots_is_refused_before_the_measurement(hr: Path) -> None:
    result = invoke(main, "--hr", hr, "--plots", hr / "image.png")
    assert_one_clear_line(result, "is a file, not a folder")


def test_plots_without_matplotlib_name_the_extra(
    hr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    result = invoke(main, "--hr", hr, "--plots", tmp_path / "plots")
    assert_one_clear_line(result, "--plots needs", "ikc-deploy[evaluation]")
