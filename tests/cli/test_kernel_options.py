from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ikc_deploy import Bundle
from ikc_deploy.cli.ikc_export import main as export
from ikc_deploy.cli.ikc_import import main as import_reference
from ikc_deploy.cli.ikc_inspect import main as inspect_bundle
from ikc_deploy.cli.ikc_upscale import main as upscale
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.reading import read_picture, read_rgb
from ikc_deploy.imaging.writing import write_picture, write_rgb
from ikc_deploy.kernels.conventions import mean_fkp_kernel
from ikc_deploy.networks.usrnet import load_usrnet, save_usrnet
from ikc_deploy.runtime.nonblind import NonBlind
from tests.bundles import near_bicubic_usrnet
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    np.save(tmp_path / "kernel.npy", mean_fkp_kernel(4))
    return tmp_path / "kernel.npy"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_rgb(photo(36, 30), tmp_path / "in.png")
    return tmp_path / "in.png"


def test_a_picture_is_upscaled_under_a_kernel(
    usrnet_bundle: Bundle, kernel: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    chosen = ("--bundle", usrnet_bundle.path, "--kernel", kernel)
    done = invoke(upscale, picture, "-o", out, *chosen, "--noise", 4)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"{out}: 30x36 -> 120x144, ") and "sigma" not in done.stdout
    with NonBlind(usrnet_bundle) as network:
        expected = network(photo(36, 30), mean_fkp_kernel(4), 4.0)
    assert np.array_equal(read_rgb(out), expected)
    first = read_rgb(out)
    for more in (("--border", "wrap"), ("--kernel-convention", "ikc")):
        done = invoke(upscale, picture, "-o", out, *chosen, *more, "--overwrite")
        assert done.exit_code == 0, done.stderr
        assert not np.array_equal(read_rgb(out), first)


def test_grey_and_transparency_are_kept(
    usrnet_bundle: Bundle, kernel: Path, tmp_path: Path
) -> None:
    grey = photo(20, 20)[:, :, :1].repeat(3, axis=2)
    write_picture(Picture(grey, np.full((20, 20), 128, np.uint8), grey=True), tmp_path / "in.png")
    out = tmp_path / "out.png"
    asked = ("--bundle", usrnet_bundle.path, "--kernel", kernel)
    done = invoke(upscale, tmp_path / "in.png", "-o", out, *asked)
    assert done.exit_code == 0, done.stderr
    made = read_picture(out)
    assert made.grey and made.size == (80, 80)
    assert made.alpha is not None and (made.alpha == 128).all()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((2, 3, 3), 1 / 9), "holds 2 kernels"),
        (np.full((3, 3), 1.0), "sums to 9"),
        (np.full((4, 4), 1 / 16), "k odd"),
        (np.full((63, 63), 1 / 63**2), "outside the 45x45"),
    ],
)
def test_a_file_that_is_no_kernel_is_one_line(
    usrnet_bundle: Bundle, picture: Path, tmp_path: Path, array: NDArray[np.float64], words: str
) -> None:
    np.save(tmp_path / "bad.npy", array)
    out = tmp_path / "out.png"
    asked = ("--bundle", usrnet_bundle.path, "--kernel", tmp_path / "bad.npy")
    assert_one_clear_line(invoke(upscale, picture, "-o", out, *asked), words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kernel", "KERNEL", "--sigma", 2], "leave out --sigma"),
        (["--kernel", "KERNEL", "--estimate", "crops"], "leave out --estimate"),
        (["--kernel", "KERNEL", "--tile", 64], "leave out --tile or --max-memory"),
        (["--kernel", "KERNEL", "--backend", "tensorrt"], "leave out --backend"),
        (["--kernel", "gone.npy"], "no kernels file"),
        (["--kernel", "in.mat"], "not a .npy or .npz file"),
        (["--noise", 3], "belong to --kernel"),
    ],
)
def test_what_does_not_go_with_a_kernel_is_one_line(
    usrnet_bundle: Bundle, kernel: Path, picture: Path, arguments: list[object], words: str
) -> None:
    given = [kernel if argument == "KERNEL" else str(argument) for argument in arguments]
    asked = (picture, "-o", picture.parent / "out.png", "--bundle", usrnet_bundle.path)
    assert_one_clear_line(invoke(upscale, *asked, *given), words)


def test_a_bundle_without_the_graph_says_how_to_add_it(
    small_bundle: Bundle, kernel: Path, picture: Path, tmp_path: Path
) -> None:
    asked = ("--bundle", small_bundle.path, "--kernel", kernel)
    result = invoke(upscale, picture, "-o", tmp_path / "out.png", *asked)
    assert_one_clear_line(result, "no graph for known kernels", "--usrnet")


def test_a_graph_is_added_to_an_export_and_shown(small_checkpoint: Path, tmp_path: Path) -> None:
    weights, out = tmp_path / "usrnet.safetensors", tmp_path / "bundle"
    save_usrnet(near_bicubic_usrnet(), weights)
    asked = ("--weights", small_checkpoint, "--fp16", "--out", out)
    done = invoke(export, *asked, "--usrnet", weights, "--res", "64x72")
    assert done.exit_code == 0, done.stderr
    assert "usrnet: LR frames of 64x72" in done.stdout and "float16 convolutions" in done.stdout
    record = Bundle.open(out).usrnet
    assert record.precision == "fp16" and set(record.convolutions) == {"float16"}
    assert f"margin {record.halo} pixels" in invoke(inspect_bundle, out).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--res", "64x64"], "give --usrnet too"),
        (["--usrnet", "gone.safetensors", "--res", "8x8"], "at least 32x32"),
        (["--usrnet", "gone.safetensors"], "no checkpoint at 'gone.safetensors'"),
    ],
)
def test_bad_options_of_the_export_are_one_line(
    small_bundle: Bundle, arguments: list[str], words: str
) -> None:
    result = invoke(export, "--bundle", small_bundle.path, *arguments)
    assert_one_clear_line(result, words)
    assert Bundle.open(small_bundle.path).files == small_bundle.files


def test_published_weights_become_a_checkpoint(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "usrnet.safetensors"
    published = shared / "official_fkp" / "usrnet_tiny.pth"
    done = invoke(import_reference, "--usrnet", published, "--out", out)
    assert done.stdout == f"{out}: 6 iterations, 16, 32, 64, 64 channels\n", done.stderr
    network = load_usrnet(out)
    state = torch.load(published, weights_only=True)
    assert torch.equal(network.prior.head.weight, state["p.m_head.weight"])
    result = invoke(import_reference, "--usrnet", published, "--fkp", published, "--out", out)
    assert_one_clear_line(result, "or one of --fkp, --usrnet, --dan alone")
