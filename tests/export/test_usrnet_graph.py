from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import loadmat

from ikc_deploy import Bundle, BundleError, ExportError, InputError
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.engines.builder import build_plan
from ikc_deploy.engines.targets import Target
from ikc_deploy.engines.toolchain import prepare_toolchain
from ikc_deploy.export.export_settings import UsrnetExport
from ikc_deploy.export.usrnet_graph import KERNEL_SIDE, DftMatrices, add_usrnet, export_usrnet
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.loops import IKC
from ikc_deploy.networks.reference_usrnet import import_usrnet
from ikc_deploy.networks.usrnet import save_usrnet
from ikc_deploy.runtime.frame_margin import Border
from ikc_deploy.runtime.nonblind import ROUNDING_NOISE, NonBlind
from tests.bundle.test_manifest import rewrite
from tests.bundles import near_bicubic_usrnet
from tests.sealing import seal


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_the_matrices_are_the_fourier_transform(height: int, width: int, seed: int) -> None:
    planes = np.random.default_rng(seed).random((2, 3, height, width))
    fourier = DftMatrices(height, width)
    real, imaginary = fourier(torch.from_numpy(planes).float())
    exact = np.fft.rfft2(planes)
    assert np.allclose(real.numpy() + 1j * imaginary.numpy(), exact, atol=1e-3)
    back = fourier.inverse((real, imaginary), (height, width))
    assert np.allclose(back.numpy(), planes, atol=1e-5)


def test_the_manifest_tells_of_the_graph_and_the_others_stay(
    small_bundle: Bundle, usrnet_bundle: Bundle
) -> None:
    record = usrnet_bundle.usrnet
    assert (record.height, record.width, record.kernel_size) == (72, 64, KERNEL_SIDE)
    assert 0 < record.halo < 28
    assert record.parity is not None and record.parity.frame_levels <= 0.51
    assert set(record.convolutions) == {"float32"}
    for name in (*(f"{graph}.onnx" for graph in IKC.graphs), "basis.npz"):
        assert usrnet_bundle.files[name] == small_bundle.files[name]
    assert small_bundle.manifest.usrnet is None


def test_a_graph_without_its_record_and_a_record_without_its_graph_are_refused(
    usrnet_bundle: Bundle, small_bundle: Bundle, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(usrnet_bundle.path, tmp_path / "bundle"))
    seal(folder, small_bundle.manifest)
    with pytest.raises(BundleError, match="contradicts its list of files about usrnet"):
        Bundle.open(folder)
    (folder / "usrnet.onnx").unlink()
    seal(folder, usrnet_bundle.manifest)
    with pytest.raises(BundleError, match="contradicts its list of files about usrnet"):
        Bundle.open(folder)
    shutil.copy(usrnet_bundle.path / "usrnet.onnx", folder)
    seal(folder, usrnet_bundle.manifest)
    rewrite(folder, lambda values: values["bundle"]["usrnet"].update(height=0))
    with pytest.raises(BundleError, match=r"usrnet is invalid: height must lie in"):
        Bundle.open(folder)


@pytest.fixture
def copied(small_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))


def test_frames_too_small_for_the_network_leave_the_bundle_as_it_was(
    small_bundle: Bundle, copied: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "usrnet.safetensors"
    save_usrnet(near_bicubic_usrnet(), weights)
    with pytest.raises(InputError, match="at least 32x32"):
        UsrnetExport(weights, (16, 64))
    with pytest.raises(InputError, match=r"32x32 are too small.*set a larger --res"):
        add_usrnet(copied, UsrnetExport(weights, (32, 32)))
    assert Bundle.open(copied).files == small_bundle.files


def test_all_is_measured_without_noise_where_the_network_reaches_farthest(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, call, levels = tmp_path / "usrnet.safetensors", NonBlind.__call__, []

    def noted(
        self: NonBlind,
        frame: NDArray[Any],
        kernel: NDArray[np.floating],
        noise: float = ROUNDING_NOISE,
        border: Border = "reflect",
    ) -> NDArray[Any]:
        levels.append(noise)
        return call(self, frame, kernel, noise, border)

    monkeypatch.setattr(NonBlind, "__call__", noted)
    save_usrnet(near_bicubic_usrnet(), weights)
    add_usrnet(copied, UsrnetExport(weights, (72, 64)))
    assert levels == [0.0] * 3


def test_a_graph_that_is_not_the_network_is_no_bundle(
    small_bundle: Bundle, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = DftMatrices.forward

    def slightly_wrong(self: DftMatrices, planes: torch.Tensor) -> object:
        real, imaginary = forward(self, planes)
        return 1.02 * real, imaginary

    monkeypatch.setattr(DftMatrices, "forward", slightly_wrong)
    weights = tmp_path / "usrnet.safetensors"
    save_usrnet(near_bicubic_usrnet(), weights)
    with pytest.raises(ExportError, match="differs from the network"):
        add_usrnet(copied, UsrnetExport(weights, (48, 40)))
    assert Bundle.open(copied).files == small_bundle.files


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_for_rtx_builds_the_graph(
    small_bundle: Bundle, copied: Path, precision: Precision
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt_rtx")
    # As other modules export it, so that it is traced once.
    export_usrnet(near_bicubic_usrnet(), copied / "usrnet.onnx", 4, (72, 64), precision, "uint8")
    manifest = replace(small_bundle.manifest, precision=precision)
    bundle = Bundle(copied, manifest, record_files(copied, ["usrnet.onnx"]))
    target = Target(("8.9",))
    toolchain = prepare_toolchain("tensorrt-rtx", target)
    plan = build_plan(bundle, "usrnet", toolchain, target, lambda *_: None)
    wanted = "HALF" if precision == "fp16" else "FLOAT"
    assert set(plan.layer_precision["CONVOLUTION"]) == {wanted}
    assert set(plan.layer_precision["MATRIX_MULTIPLY"]) == {"FLOAT"}
    assert len(plan.data) > 10_000


@pytest.fixture(scope="module")
def test_image(shared: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """HR, LR and the kernel of the published example."""
    folder = shared / "official_fkp" / "test_image"
    lr = read_rgb(folder / "DIPFKP_lr_x4/102061.png")
    hr = read_rgb(folder / "HR/102061.png")[: 4 * lr.shape[0], : 4 * lr.shape[1]]
    kernel = loadmat(folder / "DIPFKP_gt_k_x4/102061.mat")["Kernel"]
    return hr, lr, np.pad(kernel, (KERNEL_SIDE - len(kernel)) // 2).astype(np.float32)


def test_the_published_network_makes_its_figure_as_a_graph(
    shared: Path,
    test_image: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]],
    tmp_path: Path,
) -> None:
    """In float16; `tests/networks` makes it in float32, without a graph."""
    hr, lr, kernel = test_image
    network = import_usrnet(shared / "official_fkp" / "usrnet_tiny.pth")
    path = tmp_path / "usrnet.onnx"
    export_usrnet(network, path, 4, (lr.shape[0], lr.shape[1]), "fp16", "uint8")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {"lr": lr[None], "kernel": kernel[None], "noise": np.zeros(1, np.float32)}
    (frame,) = session.run(["frame"], inputs)
    assert psnr_y(frame[0], hr, border=4) == pytest.approx(26.11, abs=0.02)
