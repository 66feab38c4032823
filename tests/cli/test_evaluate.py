from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from ikc_deploy import Bundle
from ikc_deploy.bundle import write_manifest
from ikc_deploy.cli.evaluate import main
from ikc_deploy.images import write_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo


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
    dataset = json.loads(figures.read_text())["datasets"]["Tiny[1]"]
    assert "Tiny[1] (images: 1)" in result.stdout
    rows = {"bicubic": dataset["bicubic"], "true kernel": dataset["true_kernel"]}
    rows |= {f"step {step['step']}": step for step in dataset["steps"]}
    assert list(rows) == ["bicubic", "true kernel", "step 0", "step 1", "step 2"]
    lines = [line.split("│") for line in result.stdout.splitlines() if "│" in line]
    for label, row in rows.items():
        (cells,) = (line for line in lines if line[1].strip().startswith(label))
        assert cells[2].strip() == f"{row['psnr_y']:.2f}"
        assert cells[3].strip() == f"{row['ssim_y']:.4f}"
        error = row.get("sigma_mae")
        assert cells[4].strip() == ("" if error is None else f"{error:.3f}")


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
    monkeypatch.setattr("ikc_deploy.cli.bundles.default_bundle", lambda name, _: cached[name])
    result = invoke(main, "--hr", hr, *options, "--iters", 0, "--scale", 4, "--json", "-")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    values = json.loads(result.stdout)
    assert values["weights"] == small_bundle.manifest.name
    assert [step["step"] for step in values["datasets"]["Tiny[1]"]["steps"]] == [0]


def test_random_weights_are_measured_with_a_warning(
    small_bundle: Bundle, hr: Path, tmp_path: Path
) -> None:
    folder = copytree(small_bundle.path, tmp_path / "random")
    write_manifest(folder, replace(small_bundle.manifest, random_weights=True))
    result = invoke(main, "--hr", hr, "--bundle", folder, "--iters", 0, "--json", "-")
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
    assert_one_clear_line(invoke(main, "--hr", hr, "--weights", "nope"), "'nope' is neither")


def test_an_image_that_cannot_be_read_is_one_line(small_bundle: Bundle, hr: Path) -> None:
    (hr / "torn.png").write_bytes((hr / "image.png").read_bytes()[:200])
    result = invoke(main, "--hr", hr, "--bundle", small_bundle.path)
    assert_one_clear_line(result, str(hr / "torn.png"))


def test_a_folder_for_the_json_is_refused_before_the_measurement(hr: Path, tmp_path: Path) -> None:
    result = invoke(main, "--hr", hr, "--json", tmp_path)
    assert_one_clear_line(result, f"--json '{tmp_path}' is a folder")
