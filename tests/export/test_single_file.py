from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from ikc_deploy import Bundle, ExportError, InputError, KernelError
from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.cli.ikc_export import main
from ikc_deploy.export import single_file
from ikc_deploy.export.export_settings import SingleFileSettings
from ikc_deploy.export.precision import conv_precision
from ikc_deploy.export.single_file import write_single_file
from ikc_deploy.loops import IKC
from ikc_deploy.networks.architecture import Design
from ikc_deploy.runtime.backends.signal_stack import kept_signal_stack
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import load_bundle
from tests.bundles import export_small, save_small
from tests.cli.running import assert_one_clear_line, invoke

BUNDLES: list[tuple[Design, int, Precision]] = [
    ("film", 4, "fp32"),
    ("film", 2, "fp16"),
    ("reference", 3, "fp16"),
]
"""Each precision and kind of code, as `test_exporter` exports them too."""


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda case: "-".join(map(str, case)))
def floats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    design, scale, precision = request.param
    return export_small(tmp_path_factory.mktemp("single"), design, scale, precision, "float")


@pytest.fixture(scope="module")
def floats32(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_small(tmp_path_factory.mktemp("single"), "film", io="float")


def run(path: Path, lr: NDArray[Any]) -> NDArray[Any]:
    """The image of a single file in plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    image: NDArray[Any] = session.run([returned.name], {given.name: lr})[0]
    return image


@pytest.mark.parametrize("choice", [{"iters": 0}, {"iters": 2}, {"sigma": 1.2}], ids=str)
def test_images_equal_the_runtime_at_every_size(
    floats: Bundle, tmp_path: Path, choice: dict[str, Any]
) -> None:
    precision = floats.manifest.precision
    settings = SingleFileSettings(precision, **choice)
    written = write_single_file(floats, tmp_path / "model.onnx", settings)
    kind = np.float32 if precision == "fp32" else np.float16
    iters = settings.iters or 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        upscaler = load_bundle(floats, UpscalerOptions(backend="onnxruntime", iters=iters))
    with upscaler:
        for shape in ((1, 3, 9, 14), (2, 3, 16, 8)):
            lr = np.random.default_rng(0).random(shape, np.float32).astype(kind)
            wanted = upscaler(lr.astype(np.float32), sigma=settings.sigma).image
            found = run(written.path, lr)
            assert found.dtype == kind
            if precision == "fp32":
                np.testing.assert_array_equal(found, wanted)
            else:
                assert np.abs(found - wanted).max() < 2**-8


def test_no_weight_is_stored_twice(floats: Bundle, tmp_path: Path) -> None:
    def weights(model: onnx.ModelProto) -> list[bytes]:
        return [onnx.numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer]

    precision = floats.manifest.precision
    settings = SingleFileSettings(precision, iters=4)
    path = write_single_file(floats, tmp_path / "model.onnx", settings).path
    stored = weights(onnx.load(path))
    graphs = {content for name in IKC.graphs for content in weights(onnx.load(floats.graph(name)))}
    large = [content for content in stored if len(content) > 64]
    assert len(large) == len(set(large))
    assert set(large) == {content for content in graphs if len(content) > 64}
    wanted = {"fp32": "float32", "fp16": "float16"}[precision]
    assert set(conv_precision(path)) == {wanted}


def test_metadata_says_what_the_file_is(floats32: Bundle, tmp_path: Path) -> None:
    settings = SingleFileSettings(iters=1)
    path = write_single_file(floats32, tmp_path / "model.onnx", settings).path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    manifest = floats32.manifest
    assert (found["ikc_scale"], found["ikc_iters"]) == (str(manifest.scale), "1")
    assert found["ikc_weights_sha256"] == manifest.weights_sha256
    assert "ikc_licence" not in found  # known for shipped weights only
    assert json.loads(found["ikc_tools"]) == manifest.tools
    parity = json.loads(found["ikc_parity"])
    assert parity["equal_to_runtime"] is True and len(parity["graphs"]) == 4


@pytest.mark.parametrize(("scale", "precision"), [(4, "fp32"), (2, "fp16")])
def test_one_correction_too_few_fails_the_gate_and_leaves_the_old_file(
    scale: int, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = export_small(tmp_path, "film", scale, precision, "float")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    compose = single_file.compose
    fewer = SingleFileSettings(precision, iters=1)
    monkeypatch.setattr(single_file, "compose", lambda which, _: compose(which, fewer))
    with pytest.raises(ExportError, match="differs from the runtime"):
        write_single_file(bundle, path, SingleFileSettings(precision, iters=2))
    assert path.read_bytes() == b"old"


def test_openvino_takes_it(floats32: Bundle, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the extra openvino")
    lr = np.random.default_rng(0).random((1, 3, 24, 16), np.float32)
    for name, settings in {
        "iters": SingleFileSettings(iters=2),
        "s": SingleFileSettings(sigma=1.0),
    }.items():
        path = write_single_file(floats32, tmp_path / f"{name}.onnx", settings).path
        with kept_signal_stack():
            compiled = openvino.Core().compile_model(
                str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
        np.testing.assert_allclose(compiled(lr)[0], run(path, lr), atol=1e-4)


def test_tensorrt_for_rtx_builds_it(floats32: Bundle, tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs pip install tensorrt_rtx")
    for name, settings in {
        "iters": SingleFileSettings(iters=1),
        "s": SingleFileSettings(sigma=1.0),
    }.items():
        path = write_single_file(floats32, tmp_path / f"{name}.onnx", settings).path
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        network = builder.create_network()
        parser = trt.OnnxParser(network, builder.logger)
        assert parser.parse(path.read_bytes()), parser.get_error(0)
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        profile.set_shape(single_file.INPUT, (1, 3, 16, 16), (1, 3, 32, 32), (1, 3, 64, 64))
        config.add_optimization_profile(profile)
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        assert builder.build_serialized_network(network, config) is not None


def test_settings_that_contradict_are_refused(floats32: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only one of them"):
        SingleFileSettings(iters=1, sigma=1.0)
    with pytest.raises(InputError, match="at most 30"):
        SingleFileSettings(iters=31)
    with pytest.raises(InputError, match="--int8 is for bundles"):
        SingleFileSettings("int8")
    with pytest.raises(InputError, match="needs a bundle with --io float"):
        write_single_file(floats32, tmp_path / "m.onnx", SingleFileSettings("fp16"))
    with pytest.raises(KernelError, match="sigma"):
        write_single_file(floats32, tmp_path / "m.onnx", SingleFileSettings(sigma=9.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--single", "m.pth"], "recognise ONNX files by the suffix .onnx"),
        (["--single", "m.onnx", "--out", "b"], "omit --out"),
        (["--single", "m.onnx", "--usrnet", "shipped", "--triton", "t"], "omit --triton, --usrnet"),
        (["--single", "m.onnx", "--weights", "a", "--bundle", "b"], "not both"),
        (["--single", "m.onnx", "--sigma", "1", "--iters", "2"], "only one of them"),
        (["--single", "m.onnx", "--sigma", "9"], "sigma"),
        (["--single", "m.onnx", "--int8"], "--int8 is for bundles"),
        (["--iters", "2"], "give --single too"),
    ],
)
def test_the_command_refuses_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_clear_line(invoke(main, *arguments), words)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_one_file(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path / "model.onnx"
    weights = save_small(tmp_path_factory.mktemp("weights"), "film", 2)
    done = invoke(main, "--weights", weights, "--fp16", "--single", path, "--iters", 1, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metadata"]["ikc_precision"] == "fp16"
    assert run(path, np.zeros((1, 3, 8, 8), np.float16)).shape == (1, 3, 16, 16)
    assert list(tmp_path.iterdir()) == [path]
