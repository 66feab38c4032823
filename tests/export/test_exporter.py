from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from ikc_deploy import Bundle, ExportError
from ikc_deploy.bundle.manifest import FrameIO, Precision
from ikc_deploy.bundle.measurements import Verification
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.graphs import OPSET, export_module, graph_modules, input_axes
from ikc_deploy.export.precision import check_precision, conv_precision
from ikc_deploy.loops import IKC
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import load_checkpoint
from ikc_deploy.networks.weights_loader import load_weights
from tests.bundles import EXPORTS, export_small, save_small
from tests.half import write_engine
from tests.samples import photo
from tests.sealing import seal

CASES: list[tuple[Design, int, Precision, FrameIO]] = [
    ("compact", 4, "fp32", "uint8"),
    ("compact", 4, "fp16", "uint8"),
    ("film", 4, "fp32", "float"),
    ("film", 2, "fp16", "float"),
    ("reference", 3, "fp16", "float"),
]
"""Each design, scale, precision and type of frames, in few exports: other modules use them too."""


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Path]:
    design, scale, precision, io = request.param
    folder = tmp_path_factory.mktemp("export")
    return export_small(folder, design, scale, precision, io), folder / "small.safetensors"


def test_graphs_keep_their_contract_at_every_size(exported: tuple[Bundle, Path]) -> None:
    bundle, _ = exported
    manifest = bundle.manifest
    sessions = {
        name: onnxruntime.InferenceSession(
            str(bundle.graph(name)), providers=["CPUExecutionProvider"]
        )
        for name in IKC.graphs
    }
    for batch, height, width in ((1, 9, 14), (3, 16, 8)):
        lr: NDArray[Any]
        if manifest.io == "uint8":
            lr = np.stack([photo(height, width, seed) for seed in range(batch)])
        else:
            lr = np.random.default_rng(0).random((batch, 3, height, width), np.float32)
        (code,) = sessions["predictor"].run(["code"], {"lr": lr})
        assert code.dtype == np.float32
        assert code.shape == (batch, manifest.code_size)
        outputs = sessions["sftmd"].run(None, {"lr": lr, "code": code})
        names = [output.name for output in sessions["sftmd"].get_outputs()]
        image = dict(zip(names, outputs, strict=True))
        sr_shape = (batch, 3, manifest.scale * height, manifest.scale * width)
        assert image["sr"].shape == sr_shape
        if manifest.io == "uint8":
            assert image["frame"].dtype == np.uint8
            # One level: float16 holds 0..1 in steps of up to an eighth of a level.
            planes = image["frame"].transpose(0, 3, 1, 2) / 255
            assert np.abs(planes - image["sr"].astype(np.float64)).max() < 0.75 / 255
        else:
            assert names == ["sr"]
            assert image["sr"].dtype == np.float32
        (after,) = sessions["corrector"].run(["next_code"], {"sr": image["sr"], "code": code})
        assert after.dtype == np.float32
        assert after.shape == code.shape


def test_every_convolution_has_the_precision_asked_for(exported: tuple[Bundle, Path]) -> None:
    bundle, _ = exported
    wanted = "float16" if bundle.manifest.precision == "fp16" else "float32"
    for name in IKC.graphs:
        precisions = conv_precision(bundle.graph(name))
        assert set(precisions) == {wanted}
        assert precisions == bundle.manifest.convolutions[name]


def test_graphs_hold_no_local_paths_and_the_declared_opset(exported: tuple[Bundle, Path]) -> None:
    bundle, _ = exported
    for name in IKC.graphs:
        content = bundle.graph(name).read_bytes()
        assert b".py" not in content
        assert os.fsencode(Path.cwd()) not in content
        model = onnx.load_from_string(content)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]


def test_parity_in_the_manifest_is_within_its_limits(exported: tuple[Bundle, Path]) -> None:
    parity = exported[0].manifest.parity
    assert parity is not None and set(parity.graphs) == set(IKC.graphs)
    assert [step.step for step in parity.steps] == [0, 1, 2, 3]
    for graph in parity.graphs.values():
        assert graph.weights.passed and graph.whole.passed
        # Whatever the precision: what is left beside the weights' rounding is float32's.
        assert 0 < graph.weights.found < 1e-5
        assert graph.weights.rounding <= graph.whole.rounding


def test_equal_weights_export_to_equal_bytes_and_keep_engines(tmp_path: Path) -> None:
    weights = load_weights(str(save_small(tmp_path)))
    first = export_bundle(weights, tmp_path / "out", ExportSettings("fp16"))
    with_engine = write_engine(first, "a")
    second = export_bundle(weights, tmp_path / "out", ExportSettings("fp16"))
    assert second.manifest == first.manifest
    assert second.files == with_engine.files
    assert {name for name in second.files if name not in first.files} == {
        f"engines/a/{name}" for name in (*(f"{graph}.plan" for graph in IKC.graphs), "engine.json")
    }


def test_a_graph_traced_again_has_equal_bytes(
    small_bundle: Bundle, small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another process than the first trace, in a run of all tests."""
    monkeypatch.delenv(EXPORTS)
    module = graph_modules(load_checkpoint(small_checkpoint), "fp32", "uint8")["corrector"]
    inputs = {"sr": torch.zeros(2, 3, 96, 128), "code": torch.zeros(2, 10)}
    axes = input_axes("uint8", 4, ("sr", "code"))
    path = tmp_path / "corrector.onnx"
    export_module(module, inputs, {name: axes[name] for name in inputs}, ["next_code"], path)
    assert path.read_bytes() == small_bundle.graph_bytes("corrector")


def test_a_new_export_keeps_the_fourth_graph_where_it_fits_and_says_so_where_it_does_not(
    small_checkpoint: Path, usrnet_bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(usrnet_bundle.path, out)
    old = write_engine(Bundle.open(out), "a")
    opinion = Verification({}, (64, 64), {}, [], passed=True)
    seal(out, replace(old.manifest, verified={"a": opinion, "gone": opinion}))
    weights = load_weights(str(small_checkpoint))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = export_bundle(weights, out, ExportSettings())
    assert kept.usrnet == usrnet_bundle.usrnet
    assert kept.files["usrnet.onnx"] == usrnet_bundle.files["usrnet.onnx"]
    assert kept.manifest.verified == {"a": opinion}
    with pytest.warns(UserWarning) as told:
        other = export_bundle(weights, out, ExportSettings("fp16"))
    said = " ".join(str(warning.message) for warning in told)
    assert "add a new one with --usrnet" in said and "not kept: a" in said
    assert set(other.files) == {"basis.npz", *(f"{name}.onnx" for name in IKC.graphs)}


def test_a_failed_export_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_weights(str(save_small(tmp_path)))
    old = export_bundle(weights, tmp_path / "out", ExportSettings())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ikc_deploy.export.exporter.measure_parity", killed)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(weights, tmp_path / "out", ExportSettings("fp16"))
    assert Bundle.open(tmp_path / "out").manifest == old.manifest


def test_one_convolution_in_float32_fails_the_census_by_name(tmp_path: Path) -> None:
    bundle = export_small(tmp_path, precision="fp16")
    model = onnx.load(bundle.graph("predictor"))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    for tensor in model.graph.initializer:
        if tensor.name == conv.input[1]:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "smuggled.onnx")
    with pytest.raises(ExportError, match=rf"1 of 6 convolutions .*{conv.name} \(float32\)"):
        check_precision(tmp_path / "smuggled.onnx", "fp16")


def test_the_checkpoint_and_the_bundle_share_a_basis(exported: tuple[Bundle, Path]) -> None:
    bundle, checkpoint = exported
    assert load_checkpoint(checkpoint).basis.id == bundle.basis.id == bundle.manifest.basis_id
