from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ikc_deploy.errors import CheckpointError, KernelError
from ikc_deploy.kernels import SIGMA_RANGES
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.reference import import_reference
from tests.samples import small_architecture

FILES = ("sftmd", "predictor", "corrector", "pca")


def write_reference(folder: Path, networks: IkcNetworks) -> dict[str, Path]:
    """The four .pth files that the reference's training code leaves behind."""
    contents: dict[str, Any] = {n: m.state_dict() for n, m in networks.modules().items()}
    for key in ("normalize.mean", "normalize.deviation"):
        del contents["sftmd"][key]
    contents["pca"] = torch.from_numpy(networks.basis.components)
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in FILES}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_reference(tmp_path, new_networks(small_architecture("reference"), seed=4))


@pytest.fixture(scope="module")
def fixture(shared: Path) -> dict[str, Any]:
    path = shared / "official_ikc" / "ref_x4_32x40.pt"
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


@pytest.fixture(scope="module")
def imported(
    shared: Path, fixture: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> IkcNetworks:
    sftmd = tmp_path_factory.mktemp("reference") / "SFTMD.pth"
    torch.save(fixture["sftmd"], sftmd)
    official = shared / "official_ikc"
    return import_reference(
        sftmd,
        official / "Predictor_latest_G.pth",
        official / "Corrector_latest_G.pth",
        official / "pca_matrix.pth",
    )


def test_every_step_of_the_loop_gives_the_references_numbers(
    imported: IkcNetworks, fixture: dict[str, Any]
) -> None:
    lr: Tensor = fixture["lr"]
    code = imported.predictor(lr)
    torch.testing.assert_close(code, fixture["code0"], atol=1e-5, rtol=0)
    natural = imported.sftmd.unclamped(lr, code)
    torch.testing.assert_close(natural, fixture["sr_nat"], atol=1e-5, rtol=0)
    for step, expected in enumerate(fixture["srs"]):
        torch.testing.assert_close(code, fixture["codes"][step], atol=1e-5, rtol=0)
        sr = imported.sftmd(lr, code)
        torch.testing.assert_close(sr, expected, atol=1e-5, rtol=0)
        code = imported.corrector(sr, code)
    assert len(fixture["srs"]) == 3
    torch.testing.assert_close(code, fixture["codes"][3], atol=1e-5, rtol=0)


def test_the_official_basis_is_taken_as_it_is(imported: IkcNetworks, shared: Path) -> None:
    matrix = torch.load(shared / "official_ikc" / "pca_matrix.pth", weights_only=True)
    assert torch.equal(torch.from_numpy(imported.basis.components), matrix.float())
    assert imported.architecture.scale == 4
    assert imported.basis.sigma_range == SIGMA_RANGES[4]


@pytest.mark.parametrize("scale", sorted(SIGMA_RANGES))
def test_sizes_are_read_off_the_tensors(tmp_path: Path, scale: int) -> None:
    networks = new_networks(small_architecture("reference", scale), seed=4)
    imported = import_reference(**write_reference(tmp_path, networks))
    expected = networks.architecture.to_dict() | {"name": f"reference-x{scale}"}
    assert imported.architecture.to_dict() == expected
    lr, code = torch.rand(1, 3, 7, 9), networks.basis.code_of_sigma([1.2])
    with torch.no_grad():
        sr = networks.sftmd(lr, torch.from_numpy(code))
    assert torch.equal(imported.sftmd(lr, torch.from_numpy(code)), sr)


@pytest.mark.parametrize("habit", ["module.", "sft_branch.", "wrapped", "everything"])
def test_habits_of_other_savers_change_nothing(files: dict[str, Path], habit: str) -> None:
    plain = import_reference(**files)
    for name in ("sftmd", "predictor", "corrector"):
        state = torch.load(files[name], weights_only=True)
        if habit in ("sft_branch.", "everything") and name == "sftmd":
            state["sft_branch.sft1.mul_conv1.weight"] = torch.zeros(3)
        if habit in ("module.", "everything"):
            state = {f"module.{key}": value for key, value in state.items()}
        if habit in ("wrapped", "everything"):
            state = {"epoch": 3, "state_dict": state}
        torch.save(state, files[name])
    tolerant = import_reference(**files)
    for name, module in plain.modules().items():
        state = tolerant.modules()[name].state_dict()
        assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("first", "second"), [("sftmd", "predictor"), ("predictor", "corrector"), ("corrector", "pca")]
)
def test_swapped_files_are_refused(files: dict[str, Path], first: str, second: str) -> None:
    files[first], files[second] = files[second], files[first]
    with pytest.raises(CheckpointError):
        import_reference(**files)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("sftmd", "predictor", "is not the sftmd of IKC"),
        ("predictor", "corrector", "is not the predictor of IKC"),
        ("corrector", "predictor", "is not the corrector of IKC"),
    ],
)
def test_a_file_of_another_network_is_named(
    files: dict[str, Path], name: str, given: str, words: str
) -> None:
    with pytest.raises(CheckpointError, match=f"{given}.pth' {words}"):
        import_reference(**files | {name: files[given]})


def test_a_file_without_the_tensors_that_show_sizes_is_named(files: dict[str, Path]) -> None:
    state = torch.load(files["predictor"], weights_only=True)
    del state["ConvNet.0.weight"]
    torch.save(state, files["predictor"])
    with pytest.raises(CheckpointError, match=r"predictor\.pth' lacks ConvNet\.0\.weight"):
        import_reference(**files)


def test_misfits_of_all_files_are_in_one_message(files: dict[str, Path]) -> None:
    sftmd = torch.load(files["sftmd"], weights_only=True)
    del sftmd["conv_mid.bias"]
    torch.save(sftmd, files["sftmd"])
    corrector = torch.load(files["corrector"], weights_only=True)
    corrector["surplus"] = torch.zeros(1)
    corrector["code_dense.0.bias"] = torch.zeros(7)
    torch.save(corrector, files["corrector"])
    with pytest.raises(CheckpointError) as caught:
        import_reference(**files)
    for part in ("sftmd.conv_mid.bias", "corrector.surplus", "corrector.code_dense.0.bias is [7]"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["sftmd", "predictor", "corrector", "pca"])
@pytest.mark.parametrize("damage", ["nan", "inf", "int8", "int64"])
def test_weights_that_are_no_finite_real_numbers_are_not_imported(
    files: dict[str, Path], name: str, damage: str
) -> None:
    content = torch.load(files[name], weights_only=True)
    tensors = {"the PCA matrix": content} if name == "pca" else content
    key = next(iter(tensors))
    if damage in ("nan", "inf"):
        tensors[key] = tensors[key].contiguous()
        tensors[key].view(-1)[0] = float(damage)
    else:
        tensors[key] = tensors[key].to(getattr(torch, damage))
    torch.save(tensors[key] if name == "pca" else tensors, files[name])
    reason = "NaN or infinite" if damage in ("nan", "inf") else "not floating point"
    with pytest.raises(CheckpointError, match=rf"{reason}: .*{re.escape(key)}"):
        import_reference(**files)


@pytest.mark.parametrize("name", ["sftmd", "predictor", "corrector", "pca"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 3, 3, 3), (1, 1, 1, 1)])
def test_tensors_of_any_shape_are_refused_in_a_sentence(
    files: dict[str, Path], name: str, shape: tuple[int, ...]
) -> None:
    content = torch.load(files[name], weights_only=True)
    broken = torch.zeros(shape)
    torch.save(broken if name == "pca" else dict.fromkeys(content, broken), files[name])
    with pytest.raises((CheckpointError, KernelError)):
        import_reference(**files)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(files: dict[str, Path], tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "trap": Trap(tmp_path / "sprung")}, files["sftmd"])
    with pytest.raises(CheckpointError, match="only tensors are read"):
        import_reference(**files)
    assert not (tmp_path / "sprung").exists()


def test_the_networks_may_lie_in_one_file(files: dict[str, Path], tmp_path: Path) -> None:
    plain = import_reference(**files)
    parts = {"netF": "sftmd", "netP": "predictor", "netC": "corrector"}
    whole = {name: torch.load(files[part], weights_only=True) for name, part in parts.items()}
    path = tmp_path / "whole.pth"
    torch.save({**whole, "step": 5}, path)
    together = import_reference(path, path, path, files["pca"])
    for name, module in plain.modules().items():
        state = together.modules()[name].state_dict()
        assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())


def test_a_matrix_that_is_no_basis_is_named(files: dict[str, Path]) -> None:
    torch.save(2 * torch.load(files["pca"], weights_only=True), files["pca"])
    with pytest.raises(CheckpointError, match=r"pca\.pth.*orthonormal"):
        import_reference(**files)


def test_absent_files_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    files["sftmd"] = tmp_path / "absent.pth"
    with pytest.raises(CheckpointError, match=r"there is no file at '.*absent\.pth'"):
        import_reference(**files)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_a_matrix_in_half_precision_becomes_orthonormal_again(
    files: dict[str, Path], stored: torch.dtype
) -> None:
    exact = torch.load(files["pca"], weights_only=True)
    torch.save(exact.to(stored), files["pca"])
    found = import_reference(**files).basis.components.astype(np.float64)
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-6)
    rounding = torch.finfo(stored).eps / 2 * float(exact.abs().max())
    assert np.abs(found - exact.numpy()).max() <= 2 * rounding
