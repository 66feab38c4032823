"""Checkpoints as other training code saves them: everything around the tensors may differ."""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
import zipfile
from collections.abc import Callable
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.io import savemat
from torch import Tensor, nn

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.foreign_checkpoints import NetworkMarks, read_matrix, read_network

MARKS = NetworkMarks(("first.weight", "last.weight"), foreign=("dense.weight",))
WEIGHTS = {
    "first.weight": torch.arange(12.0).reshape(3, 4),
    "block.first.weight": torch.ones(2, 2),
    "last.weight": torch.full((5,), 0.5),
}
OTHER = {"first.weight": torch.zeros(3, 4), "last.weight": torch.zeros(5)}
ADAM = {"state": {0: {"exp_avg": torch.zeros(3, 4)}}, "param_groups": [{"lr": 1e-4}]}

SAVED: dict[str, Any] = {
    "plain": WEIGHTS,
    "module": {f"module.{key}": value for key, value in WEIGHTS.items()},
    "compiled within DataParallel": {f"module._orig_mod.{k}": v for k, v in WEIGHTS.items()},
    "a training state": {"epoch": 3, "state_dict": WEIGHTS, "optimizer": ADAM, "best": 31.5},
    "two wrappers": {"model": {"params": WEIGHTS}},
    "averaged": {"params": OTHER, "params_ema": WEIGHTS},
    "a whole Lightning module": {
        "state_dict": {
            **{f"net_g.{key}": value for key, value in WEIGHTS.items()},
            "net_d.conv.weight": torch.zeros(2),
        }
    },
    "with a network that shares names": {
        "netP": WEIGHTS,
        "netC": OTHER | {"dense.weight": torch.zeros(2)},
    },
    "numbers between the tensors": WEIGHTS | {"epoch": 3, "loss": 0.1},
    "parameters": {key: nn.Parameter(value) for key, value in WEIGHTS.items()},
}


@pytest.mark.parametrize("saved", SAVED)
def test_the_same_tensors_are_found_however_they_were_saved(saved: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(SAVED[saved], path)
    found = read_network(path, MARKS)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[key], value) for key, value in WEIGHTS.items())
    assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_of_a_training_beside_the_tensors_are_left_out(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class of Lightning's settings is not installed where the file is read."""
    name = "lightning.fabric.utilities.data"
    settings = type("AttributeDict", (dict,), {"__module__": name, "__qualname__": "AttributeDict"})
    values = argparse.Namespace(path=Path("x"), at=datetime(2026, 1, 1), sizes=slice(3))
    values.best, values.curve, values.text = np.float64(31.5), np.arange(3), np.str_("a")
    content = {"state_dict": WEIGHTS, "hyper_parameters": settings(nested=settings(args=values))}
    with monkeypatch.context() as patched:
        for part in accumulate(name.split("."), "{}.{}".format):
            patched.setitem(sys.modules, part, ModuleType(part))
        patched.setattr(sys.modules[name], "AttributeDict", settings, raising=False)
        torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    found = read_network(tmp_path / "a.ckpt", MARKS)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[key], value) for key, value in WEIGHTS.items())


@pytest.mark.parametrize("dtype", ["f4", ">f4", "f2"])
def test_arrays_of_numpy_are_tensors(dtype: str, tmp_path: Path) -> None:
    torch.save({key: value.numpy().astype(dtype) for key, value in WEIGHTS.items()}, tmp_path / "a")
    found = read_network(tmp_path / "a", MARKS)
    assert all(torch.equal(found[key].float(), value) for key, value in WEIGHTS.items())


def to_cuda(path: Path) -> None:
    """What torch.save writes for tensors on a GPU: only the name of the device differs."""
    content = io.BytesIO()
    torch.save(WEIGHTS, content)
    with zipfile.ZipFile(content) as plain, zipfile.ZipFile(path, "w") as moved:
        for entry in plain.infolist():
            data = plain.read(entry)
            moved.writestr(entry, data.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0"))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
        lambda path: save_file(WEIGHTS, path),
        to_cuda,
    ],
    ids=["legacy", "safetensors", "cuda"],
)
def test_the_format_is_recognised_by_its_content(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "network.pth"
    write(path)
    found = read_network(path, MARKS)
    assert all(torch.equal(found[key], value) for key, value in WEIGHTS.items())


def test_a_network_that_is_there_twice_is_not_chosen_by_chance(tmp_path: Path) -> None:
    torch.save({"best": WEIGHTS, "last": OTHER}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"holds the network 2 times, at 'best', 'last'"):
        read_network(tmp_path / "two.pth", MARKS)


def test_a_dict_within_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = dict(WEIGHTS)
    content["self"] = content
    torch.save(content, tmp_path / "loop.pth")
    assert read_network(tmp_path / "loop.pth", MARKS).keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.eye(4).to_sparse(), "sparse"),
        (torch.zeros(4, 4, device="meta"), "meta device"),
        (torch.zeros(1).expand(10**6, 10**7), "repeats values"),
    ],
)
def test_tensors_without_values_of_their_own_are_refused_before_they_fill_the_memory(
    value: Tensor, reason: str, tmp_path: Path
) -> None:
    torch.save(WEIGHTS | {"bias": value}, tmp_path / "network.pth")
    torch.save(value, tmp_path / "matrix.pth")
    with pytest.raises(CheckpointError, match=rf"bias .*{reason}"):
        read_network(tmp_path / "network.pth", MARKS)
    with pytest.raises(CheckpointError, match=rf"the PCA matrix .*{reason}"):
        read_matrix(tmp_path / "matrix.pth")


def _bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    content = io.BytesIO()
    write(content)
    return content.getvalue()


class Huge:
    """An array whose pickle claims more memory than there is."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.empty(0).__reduce__()[0], (np.ndarray, (2**55,), b"d")


class Dangerous:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("false",)


PTH = _bytes(lambda file: torch.save(WEIGHTS, file))


def _zipped(name: str, data: bytes) -> bytes:
    def write(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, data)

    return _bytes(write)


def _script() -> bytes:
    return _bytes(lambda file: torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>", "begins with '<!DOCTYPE html><html>'; download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text and not a checkpoint"),
        (PTH[:-40], "cut short or damaged"),
        (PTH[: len(PTH) // 2], "cut short or damaged"),
        (_zipped("SFTMD.pth", PTH), "a ZIP file with SFTMD.pth; unpack it"),
        (gzip.compress(PTH), "download it again|damaged"),
        (_script, "TorchScript program, which is not run"),
        (_bytes(lambda f: torch.save(WEIGHTS, f, pickle_protocol=4)), "another pickle protocol"),
        (_bytes(lambda f: torch.save(nn.Linear(2, 2), f)), "holds torch.nn.*Linear, and only"),
        (_bytes(lambda f: torch.save({"w": np.array([{}])}, f)), "holds more than tensors"),
        (_bytes(lambda f: torch.save(WEIGHTS | {"x": Dangerous()}, f)), "holds posix.system, and"),
        (_bytes(lambda f: torch.save(WEIGHTS | {"x": Huge()}, f)), "too large for the memory"),
        (_bytes(lambda f: torch.save({"lr": 1e-4}, f)), r"a dict without tensors \('lr'\)"),
        (_bytes(lambda f: torch.save({"optimizers": [ADAM], "iter": 5}, f)), "without the network"),
        (_bytes(lambda f: torch.save({"optimizer": ADAM, "epoch": 5}, f)), "without the network"),
        (_bytes(lambda f: torch.save([torch.zeros(2)], f)), "an object of type list"),
    ],
)
def test_other_files_are_refused_with_what_to_do(
    content: bytes | Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "network.pth"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(CheckpointError, match=rf"network\.pth.*({reason})"):
        read_network(path, MARKS)


MATRIX = np.linspace(-1, 1, 45).reshape(9, 5)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("pca.pth", lambda path: torch.save(torch.from_numpy(MATRIX), path)),
        ("pca.pth", lambda path: torch.save({"pca_matrix": torch.from_numpy(MATRIX)}, path)),
        ("pca.safetensors", lambda path: save_file({"pca": torch.from_numpy(MATRIX)}, path)),
        ("pca.npy", lambda path: np.save(path, MATRIX)),
        ("pca.npy", lambda path: np.save(path, np.asfortranarray(MATRIX.astype(">f8")))),
        ("pca.npz", lambda path: np.savez_compressed(path, pca=MATRIX, mean=np.zeros(9))),
        ("pca.pth", lambda path: torch.save(MATRIX, path)),
        ("pca.mat", lambda path: savemat(path, {"P": MATRIX, "mean": np.zeros(9), "n": 5})),
        ("pca.mat", lambda path: savemat(path, {"P": MATRIX}, format="4")),
    ],
)
def test_a_matrix_is_read_from_every_format(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / name)
    np.testing.assert_array_equal(read_matrix(tmp_path / name).numpy(), MATRIX)


def _lying(path: Path) -> None:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    length = len(header).to_bytes(2, "little")
    path.write_bytes(b"\x93NUMPY\1\0" + length + header.encode() + bytes(80))


def _matlab_73(path: Path) -> None:
    """The head of an HDF5 file as MATLAB writes it."""
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124)
    path.write_bytes(text + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n")


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("pca.npz", lambda path: np.savez(path, a=MATRIX, b=MATRIX), "holds 2 matrices"),
        ("pca.npy", lambda path: np.save(path, MATRIX[0]), "holds 0 matrices"),
        ("pca.npy", lambda path: np.save(path, np.array([{}])), "numpy arrays of numbers"),
        ("pca.npy", lambda path: np.save(path, np.array([["a"]])), "numpy arrays of numbers"),
        ("pca.npy", _lying, "numpy arrays of numbers"),
        ("pca.npy", lambda path: path.write_bytes(b""), "numpy arrays of numbers"),
        ("pca.mat", lambda path: path.write_bytes(b"MATLAB"), "not a readable MATLAB file"),
        ("pca.mat", _matlab_73, r"save\('pca.mat', 'M', '-v7'\)"),
        ("pca.mat", lambda path: None, "there is no file"),
        ("pca.csv", lambda path: np.savetxt(path, MATRIX), r"numpy\.loadtxt"),
        ("pca.pth", lambda path: torch.save(torch.zeros(3, 0), path), r"of shape \[3, 0\]"),
    ],
)
def test_other_matrices_are_refused(
    name: str, write: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=reason):
        read_matrix(tmp_path / name)
