from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ikc_deploy.cli.ikc_import import main
from ikc_deploy.networks.checkpoints import load_checkpoint, new_networks
from ikc_deploy.networks.flow import load_flow
from tests.samples import small_architecture


@pytest.fixture
def reference_files(tmp_path: Path) -> dict[str, str]:
    """The four files that the reference would write for small x3 networks."""
    networks = new_networks(small_architecture("reference", 3), seed=2)
    files = {}
    for name, module in networks.modules().items():
        state = {k: v for k, v in module.state_dict().items() if not k.startswith("normalize")}
        files[name] = str(tmp_path / f"{name}.pth")
        torch.save(state, files[name])
    files["pca"] = str(tmp_path / "pca.pth")
    torch.save(torch.from_numpy(networks.basis.components), files["pca"])
    return files


def options(files: dict[str, str]) -> list[str]:
    return [part for name, path in files.items() for part in (f"--{name}", path)]


def test_four_files_become_one_checkpoint(reference_files: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "imported.safetensors"
    done = CliRunner().invoke(main, [*options(reference_files), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "x3, 4 channels, 2 blocks, codes of 10" in done.stdout
    imported = load_checkpoint(out)
    expected = torch.load(reference_files["corrector"], weights_only=True)
    for key, value in imported.modules()["corrector"].state_dict().items():
        assert torch.equal(value, expected[key])


def test_missing_and_swapped_files_are_one_line_and_exit_code_2(
    reference_files: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "imported.safetensors"
    swapped = reference_files | {"predictor": reference_files["corrector"]}
    absent = reference_files | {"sftmd": str(tmp_path / "absent.pth")}
    for files in (swapped, absent):
        done = CliRunner().invoke(main, [*options(files), "--out", str(out)])
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    assert not out.exists()


def test_the_kernel_prior_of_fkp_is_imported_alone(
    reference_files: dict[str, str], shared: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "fkp.safetensors", shared / "official_fkp" / "FKP_x2.pt"
    done = CliRunner().invoke(main, ["--fkp", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "x2, kernels of 11x11" in done.stdout
    assert load_flow(2, out).scale == 2


def test_files_of_two_methods_or_of_none_are_refused(
    reference_files: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    for arguments in ([], options(reference_files)[2:], [*options(reference_files), "--fkp", "f"]):
        done = CliRunner().invoke(main, [*arguments, "--out", str(out)])
        assert done.exit_code == 2
        assert (
            "either --sftmd, --predictor, --corrector, --pca together, or one of --fkp"
            in done.stderr
        )
    assert not out.exists()


@pytest.mark.parametrize("version", [1, 2])
def test_a_published_dan_is_imported_alone(version: int, shared: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "dan.safetensors", shared / "official_dan" / f"danv{version}_x4_24x20.pt"
    done = CliRunner().invoke(main, ["--dan", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    name, blocks = ("DAN", 2) if version == 1 else ("DANv2", 4)
    assert f"{name}, x4, 64 channels, {blocks} blocks, codes of 10" in done.stdout
    assert load_checkpoint(out).loop.name == "dan"
