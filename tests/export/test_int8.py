from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy import Bundle, ExportError, InputError
from ikc_deploy.export import calibration
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.graphs import export_module
from ikc_deploy.export.int8 import best_scale, quantize_graph
from ikc_deploy.loops import IKC
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint
from ikc_deploy.networks.weights_loader import Weights, load_weights
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.backends.onnx_sessions import EXACT_INT8


class Modulated(nn.Module):
    """As in an SFT layer: one tensor, read by two convolutions and a product."""

    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.before, self.first, self.second = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        if not biased:
            for conv in (self.before, self.first, self.second):
                nn.init.zeros_(cast(Tensor, conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return x * torch.sigmoid(self.first(x)) + self.second(x)


@pytest.fixture(params=[True, False], ids=["biased", "untrained"])
def quantized(
    tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Path, NDArray[np.float32], NDArray[np.float32]]:
    """A quantised file, an input, and the output of the float32 network."""
    torch.manual_seed(0)
    module = Modulated(request.param).eval()
    path = tmp_path / "graph.onnx"
    axes = {"x": {0: "batch", 2: "height", 3: "width"}}
    export_module(module, {"x": torch.zeros(2, 16, 12, 16)}, axes, ["y"], path)
    feeds = [{"x": torch.randn(1, 16, 20, 24).numpy()} for _ in range(4)]
    quantize_graph(path, feeds)
    x = torch.randn(1, 16, 33, 27)
    with torch.no_grad():
        return path, x.numpy(), module(x).numpy()


def test_the_quantised_graph_stays_close_to_the_float_one(
    quantized: tuple[Path, NDArray[np.float32], NDArray[np.float32]],
) -> None:
    path, x, expected = quantized
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*EXACT_INT8)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    noise = np.mean((found - expected) ** 2) / np.mean(expected**2)
    assert 0 < noise < 1e-3


def test_every_convolution_becomes_an_integer_one_in_onnx_runtime(
    quantized: tuple[Path, NDArray[np.float32], NDArray[np.float32]], tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(quantized[0]), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    kinds = [node.op_type for node in optimised.graph.node if "Conv" in node.op_type]
    assert kinds == ["QLinearConv"] * 3


def test_tensorrt_reads_the_graph(
    quantized: tuple[Path, NDArray[np.float32], NDArray[np.float32]],
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs: pip install tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(quantized[0].read_bytes()), [
        parser.get_error(index).desc() for index in range(parser.num_errors)
    ]
    kinds = [network.get_layer(index).type.name for index in range(network.num_layers)]
    assert kinds.count("CONVOLUTION") == 3 and kinds.count("QUANTIZE") >= 6


def test_weights_are_symmetric_and_scaled_by_channel(
    quantized: tuple[Path, NDArray[np.float32], NDArray[np.float32]],
) -> None:
    tensors = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(quantized[0]).graph.initializer
    }
    weights = {name: value for name, value in tensors.items() if name.endswith("weight_int8")}
    assert len(weights) == 3
    for name, value in weights.items():
        assert value.dtype == np.int8
        assert np.abs(value.reshape(16, -1).astype(int)).max(axis=1).tolist() == [127] * 16
        scale = tensors[name.replace("_int8", "_scale")]
        assert scale.shape == (16,) and len(set(scale.tolist())) > 1
    assert all((value == 0).all() for name, value in tensors.items() if name.endswith("_zero"))


@given(st.integers(0, 100))
def test_the_best_scale_is_no_worse_than_the_largest_value(seed: int) -> None:
    values = np.abs(np.random.default_rng(seed).standard_t(3, 2000))

    def error(scale: float) -> float:
        rounded = np.clip(np.rint(values / scale), -127, 127) * scale
        return float(np.mean((rounded - values) ** 2))

    assert error(best_scale(values)) <= error(values.max() / 127)
    assert best_scale(np.zeros(4)) == 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    path = tmp_path_factory.mktemp("weights") / "wide.safetensors"
    settings = Architecture("wide", 2, "compact", 32, 1, 32, (0.2, 2.0))
    save_checkpoint(new_networks(settings, seed=0), path)
    return load_weights(str(path))


@pytest.fixture
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MADE", 4)
    monkeypatch.setattr(calibration, "_SIDE", 96)


def test_an_int8_bundle_says_what_it_costs(
    weights: Weights, tmp_path: Path, small_images: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def opening(name: str, bundle: Bundle) -> Backend:
        opened.append(bundle.manifest.precision)
        return open_backend(name, bundle)

    monkeypatch.setattr(calibration, "open_backend", opening)
    bundle = export_bundle(weights, tmp_path / "out", ExportSettings("int8"))
    # Once each for calibration and reference, and once for every attempt, whatever the images.
    assert opened[:2] == ["fp32", "fp32"] and set(opened[2:]) == {"int8"}
    assert len(opened) <= 2 + len(calibration.LADDERS["ikc"])
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.precision == "int8"
    assert all(counts["int8"] > 0 for counts in manifest.convolutions.values())
    assert manifest.parity is not None and manifest.parity.int8 is not None
    found = manifest.parity.int8
    assert found.images == 2
    for loss in (found.blind, found.true_kernel):
        assert loss.median_db <= loss.worst_db <= calibration.MAX_WORST_LOSS
        assert loss.median_db <= calibration.MAX_MEDIAN_LOSS
    # The median of two is their mean.
    assert found.blind.median_db == pytest.approx(found.fp32_db - found.int8_db)
    assert set(bundle.files) == {*(f"{name}.onnx" for name in IKC.graphs), "basis.npz"}


def test_too_great_a_loss_keeps_more_in_float_and_in_the_end_makes_no_bundle(
    weights: Weights, tmp_path: Path, small_images: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MAX_WORST_LOSS", -1.0)
    kept: list[int] = []
    original = quantize_graph

    def watched(path: Path, feeds: object, keep: list[str]) -> None:
        if path.name == "sftmd.onnx":
            kept.append(len(keep))
        original(path, feeds, keep)  # type: ignore[arg-type]

    monkeypatch.setattr(calibration, "quantize_graph", watched)
    with pytest.raises(ExportError, match=r"8 bits cost .* No bundle was written"):
        export_bundle(weights, tmp_path / "out", ExportSettings("int8"))
    assert kept == sorted(set(kept)) and len(kept) == len(calibration.LADDERS["ikc"])
    assert not (tmp_path / "out").exists()


def test_images_to_calibrate_on_must_be_two_and_are_for_int8(
    weights: Weights, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is for --int8"):
        ExportSettings("fp32", calibrate=tmp_path)
    folder = tmp_path / "hr"
    folder.mkdir()
    with pytest.raises(InputError):
        export_bundle(weights, tmp_path / "out", ExportSettings("int8", calibrate=folder))
