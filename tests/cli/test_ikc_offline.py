from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ikc_deploy import Bundle
from ikc_deploy.cli.ikc_offline import main
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.reading import read_picture, read_rgb
from ikc_deploy.imaging.writing import write_picture, write_rgb
from ikc_deploy.kernels import degrade_fkp, shifted_gaussian
from ikc_deploy.networks.usrnet import Usrnet, UsrnetSettings, save_usrnet
from ikc_deploy.offline import nonblind_stage
from ikc_deploy.offline.dip_fkp import DipFkp
from ikc_deploy.offline.optimize import Losses
from tests.cli.running import assert_one_clear_line, invoke
from tests.offline.flows import save_untrained
from tests.samples import photo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HR picture, its kernel, the LR picture, and weights for whatever needs some."""
    root = tmp_path_factory.mktemp("offline")
    hr, kernel = photo(65, 80), shifted_gaussian(1.0, 2.0, 0.5, 2)
    write_rgb(hr, root / "hr.png")
    np.save(root / "kernel.npy", kernel)
    lr = np.clip(np.rint(degrade_fkp(hr[:64], kernel, 2)), 0, 255).astype(np.uint8)
    write_rgb(lr, root / "lr.png")
    for scale in (2, 4):
        save_untrained(root, scale)
    torch.manual_seed(0)
    small = Usrnet(UsrnetSettings(iterations=1, channels=(4, 4, 4, 4), blocks=1))
    save_usrnet(small, root / "usrnet.safetensors")
    return root


def dip(folder: Path, out: Path, iterations: int, *more: str | Path, scale: int = 2) -> list[str]:
    """The arguments of a DIP-FKP run of a few iterations."""
    prior = folder / f"untrained-x{scale}.safetensors"
    words = [folder / "lr.png", "--method", "dip-fkp", "--scale", scale, "-o", out]
    return [str(word) for word in (*words, "--iterations", iterations, "--prior", prior, *more)]


def test_a_run_leaves_everything_and_says_how_good_it_is(folder: Path, tmp_path: Path) -> None:
    truth = ("--reference", folder / "hr.png", "--true-kernel", folder / "kernel.npy")
    more = (*truth, "--alignment", "fkp", "--then", "usrnet", "--usrnet")
    arguments = dip(folder, tmp_path, 2, *more, folder / "usrnet.safetensors")
    result = invoke(main, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    names, image, kernel, then = result.stdout.splitlines()
    listed = ["image.png", "kernel.npy", "kernel.png", "history.csv", "history.png"]
    assert names == f"{tmp_path}: {', '.join(listed)}, image-usrnet.png"
    assert {path.name for path in tmp_path.iterdir()} == {
        *listed,
        "image-usrnet.png",
        "report.json",
        "fit.pt",
    }
    report = json.loads((tmp_path / "report.json").read_text())
    figures = report["figures"]
    assert image.startswith(f"image: 80x64, PSNR-Y {figures['psnr_y']:.2f} dB (bicubic ")
    assert kernel.startswith(f"kernel: 11x11, PSNR {figures['kernel_psnr']:.2f} dB")
    assert then.startswith("usrnet: ") and f"{figures['psnr_y_usrnet']:.2f} dB" in then
    found = np.load(tmp_path / "kernel.npy") - np.load(folder / "kernel.npy")
    assert figures["kernel_psnr"] == pytest.approx(-10 * np.log10(np.mean(found**2)))
    assert report["complete"] and report["iterations"] == 2
    assert report["settings"]["seed"] == 0
    assert read_rgb(tmp_path / "image-usrnet.png").shape == (64, 80, 3)


def test_control_c_writes_what_there_is_and_the_same_command_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = invoke(main, *dip(folder, tmp_path / "unbroken", 4))
    assert unbroken.exit_code == 0, unbroken.output
    steps: list[int] = []
    stepping = DipFkp.step

    def interrupted(self: DipFkp) -> Losses:
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return stepping(self)

    monkeypatch.setattr(DipFkp, "step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    arguments = dip(folder, tmp_path / "broken", 4)
    result = invoke(main, *arguments)
    assert result.exit_code == 130
    assert "stopped after 2 iterations; run the same command to continue" in result.stderr
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "broken" / "image.png").exists()
    assert invoke(main, *arguments).exit_code == 0
    assert len(steps) == 4
    for name in ("image.png", "kernel.npy", "history.csv"):
        theirs = (tmp_path / "unbroken" / name).read_bytes()
        assert (tmp_path / "broken" / name).read_bytes() == theirs, name


def test_a_crop_is_fitted_and_the_whole_picture_made_by_sftmd(
    folder: Path, small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rgb(photo(48, 70, seed=1), tmp_path / "large.png")
    more = ("--crop", "32", "--then", "sftmd", "--bundle", small_bundle.path)
    arguments = dip(folder, tmp_path / "out", 1, *more, scale=4)
    arguments[0] = str(tmp_path / "large.png")
    # An untrained flow makes noise of a kernel, which no basis knows.
    assert_one_clear_line(invoke(main, *arguments), "does not support this kernel", "--then usrnet")
    assert read_rgb(tmp_path / "out" / "image.png").shape == (128, 128, 3)
    assert not (tmp_path / "out" / "image-sftmd.png").exists()
    monkeypatch.setattr(nonblind_stage, "MAX_LOST", 10.0)
    result = invoke(main, *arguments)
    assert result.exit_code == 0, result.output
    assert "sftmd: under a kernel " in result.stdout
    assert read_rgb(tmp_path / "out" / "image-sftmd.png").shape == (192, 280, 3)


def test_a_grey_picture_stays_grey(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.open(folder / "lr.png").convert("L").save(tmp_path / "grey.png")
    arguments = dip(folder, tmp_path / "out", 1)
    arguments[0] = str(tmp_path / "grey.png")
    assert invoke(main, *arguments).exit_code == 0
    assert read_picture(tmp_path / "out" / "image.png").grey


def listed(out: Path) -> set[str]:
    """What the report says is in the folder."""
    return {*json.loads((out / "report.json").read_text())["files"], "report.json"}


def test_the_report_lists_the_files_and_none_of_another_result_stays(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    then = ("--then", "usrnet", "--usrnet", folder / "usrnet.safetensors")
    assert invoke(main, *dip(folder, out, 2, *then)).exit_code == 0
    assert {path.name for path in out.iterdir()} == listed(out) >= {"image-usrnet.png", "fit.pt"}
    # The same fit, so what was made of it stays.
    assert invoke(main, *dip(folder, out, 2)).exit_code == 0
    assert {path.name for path in out.iterdir()} == listed(out) >= {"image-usrnet.png"}
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    fewer = invoke(main, *dip(folder, out, 1, *then))
    assert_one_clear_line(fewer, "holds 2 iterations", "requested 1")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert invoke(main, *dip(folder, out, 3)).exit_code == 0
    assert {path.name for path in out.iterdir()} == listed(out) == {*before} - {"image-usrnet.png"}
    assert len((out / "history.csv").read_text().splitlines()) == 4
    # Deleting the state begins again, as its message says.
    (out / "fit.pt").unlink()
    assert invoke(main, *dip(folder, out, 1)).exit_code == 0
    assert {path.name for path in out.iterdir()} == listed(out) == {*before} - {"image-usrnet.png"}


@pytest.mark.parametrize("report", [None, "{}", '{"files": ["image.png"]}', "[", '["x"]'])
def test_a_folder_with_anything_else_in_it_is_not_written_into(
    folder: Path, tmp_path: Path, report: str | None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "image.png").write_text("mine")
    if report is not None:
        (out / "report.json").write_text(report)
    before = {path.name: path.read_text() for path in out.iterdir()}
    assert_one_clear_line(invoke(main, *dip(folder, out, 1)), "'image.png'", "would be lost")
    assert {path.name: path.read_text() for path in out.iterdir()} == before


def test_a_fit_killed_while_it_writes_is_repeated_and_a_second_one_at_once_waits(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    program = """
import os, signal, sys
from ikc_deploy.cli.ikc_offline import main
from ikc_deploy.offline import job
write = job.write_result
def killed(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
job.write_result = killed
main(sys.argv[1:])
"""
    command = [sys.executable, "-c", program, *dip(folder, out, 1)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (out / "kernel.npy").exists()
    again = [sys.executable, "-m", "ikc_deploy.cli.ikc_offline", *dip(folder, out, 1)]
    with subprocess.Popen(again, stderr=subprocess.PIPE, text=True) as other:
        ours = invoke(main, *dip(folder, out, 1))
        said = [ours.stderr, other.communicate()[1]]
    assert [ours.exit_code, other.returncode] == [0, 0], said
    assert all(not text or text.startswith("waiting for process") for text in said)
    assert {path.name for path in out.iterdir()} == listed(out)
    assert json.loads((out / "report.json").read_text())["complete"]


@pytest.mark.parametrize("colour", [(9, 9, 9), (0, 0, 255), (10, 200, 30)])
@pytest.mark.parametrize("method", ["dip-fkp", "kernelgan-fkp", "ike"])
def test_flat_pictures_of_any_colour_are_refused(
    folder: Path, tmp_path: Path, colour: tuple[int, int, int], method: str
) -> None:
    write_rgb(np.full((80, 80, 3), colour, np.uint8), tmp_path / "flat.png")
    arguments = dip(folder, tmp_path / "out", 1)
    arguments[0] = str(tmp_path / "flat.png")
    arguments[2] = method
    if method == "ike":
        arguments = arguments[: arguments.index("--prior")]
    assert_one_clear_line(invoke(main, *arguments), "one flat colour")
    assert not (tmp_path / "out").exists()


def test_transparency_is_refused_instead_of_lost(folder: Path, tmp_path: Path) -> None:
    image = Picture(photo(32, 40), np.full((32, 40), 128, np.uint8))
    write_picture(image, tmp_path / "glass.png")
    arguments = dip(folder, tmp_path / "out", 1)
    arguments[0] = str(tmp_path / "glass.png")
    assert_one_clear_line(invoke(main, *arguments), "glass.png' has transparency")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change,words",
    [
        ({"--scale": "3", "--method": "kernelgan-fkp"}, ["x2 and x4, not x3"]),
        ({"--method": "kernelgan-fkp"}, ["40x32 pixels", "needs at least 64"]),
        ({"--method": "ike", "--prior": None, "--true-kernel": "kernel.npy"}, ["finds no kernel"]),
        ({"--method": "ike"}, ["has no prior"]),
        ({"--prior": "missing.safetensors"}, ["missing.safetensors"]),
        ({"--then": "sftmd", "--usrnet": "x"}, ["--usrnet is for --then usrnet"]),
        ({"--bundle": "x"}, ["are for --then sftmd"]),
        ({"--then": "sftmd", "--bundle": "BUNDLE"}, ["upscales x4, not x2"]),
        ({"--reference": "lr.png"}, ["40x32", "80x64"]),
        ({"--true-kernel": "lr.png"}, ["not a .npy or .npz file"]),
        ({"-o": "hr.png"}, ["is a file"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_first_iteration(
    folder: Path,
    small_bundle: Bundle,
    tmp_path: Path,
    change: dict[str, str | None],
    words: list[str],
) -> None:
    arguments = dip(folder, tmp_path / "out", 1)
    for option, value in change.items():
        if option in arguments:
            place = arguments.index(option)
            del arguments[place : place + 2]
        if value == "BUNDLE":
            arguments += [option, str(small_bundle.path)]
        elif value is not None:
            arguments += [option, str(folder / value) if "." in value else value]
    assert_one_clear_line(invoke(main, *arguments), *words)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_fitted_with_a_table_and_the_switches_reach_the_fit(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("2.png", "10.png"):
        write_rgb(photo(40, 44, seed=len(name)), tmp_path / "in" / name)
        write_rgb(photo(80, 88, seed=len(name)), tmp_path / "hr" / name.replace("png", "jpg"))
    write_rgb(np.full((40, 44, 3), 9, np.uint8), tmp_path / "in" / "flat.png")
    write_rgb(np.full((80, 88, 3), 9, np.uint8), tmp_path / "hr" / "flat.png")
    options = ("--method", "ike", "--scale", 2, "-o", tmp_path / "out", "--iterations", 1)
    more = ("--coupling", "additive", "--no-energy", "--reference", tmp_path / "hr")
    result = invoke(main, tmp_path / "in", *options, *more)
    assert result.exit_code == 2
    assert "1 of 3 images failed:" in result.stderr and "flat.png" in result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if ".png " in line]
    assert [cells[0] for cells in lines if len(cells) == 4] == ["2.png", "10.png"]
    report = json.loads((tmp_path / "out" / "10" / "report.json").read_text())
    assert report["settings"]["coupling"] == "additive" and report["settings"]["energy"] is False
    assert report["settings"]["interpolation"] is True
    assert_one_clear_line(
        invoke(main, *dip(folder, tmp_path / "dip", 1, "--no-energy")), "dip-fkp has no energy"
    )
    (tmp_path / "hr" / "2.jpg").unlink()
    assert_one_clear_line(invoke(main, tmp_path / "in", *options, *more), "has no 2.png or .jpg")
