"""Graphs are what the manifest says when they are loaded, whoever made them."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import ikc_deploy
from ikc_deploy import BackendError, Bundle, BundleError
from ikc_deploy.loops import IKC
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.onnx_files import keeps_tensors_elsewhere, read_graph
from tests.half import half_bundle
from tests.samples import photo
from tests.sealing import seal


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    """Names of the backends that read the graphs."""
    return str(request.param)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return half_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"io": "float"}, "the predictor .* has an input lr of uint8 .* requires float32"),
        ({"precision": "fp32"}, "the sftmd .* has an output sr of float16 .* requires float32"),
        (
            {"scale": 3},
            r"the sftmd .* sr of float16 \[1, 3, 32, 32\].*requires float16 \[1, 3, 24, 24",
        ),
    ],
)
def test_a_manifest_of_other_graphs_is_refused(
    bundle: Bundle, backend: str, change: dict[str, Any], words: str
) -> None:
    seal(bundle.path, replace(bundle.manifest, **change))
    with pytest.raises(BundleError, match=words):
        open_backend(backend, Bundle.open(bundle.path))


@pytest.mark.parametrize(
    ("graph", "change", "words"),
    [
        ("predictor", ("lr", "frames"), "has inputs frames"),
        ("predictor", ("code", "h"), "has outputs h"),
        ("sftmd", ("frame", "picture"), "has outputs picture, sr"),
        ("corrector", ("next_code", "code_after"), "has outputs code_after"),
    ],
)
def test_graphs_with_other_tensors_are_refused(
    bundle: Bundle, backend: str, graph: str, change: tuple[str, str], words: str
) -> None:
    model = onnx.load(bundle.graph(graph))
    old, new = change
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    onnx.save(model, bundle.graph(graph))
    seal(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match=words):
        open_backend(backend, Bundle.open(bundle.path))


def test_codes_of_another_size_are_refused(bundle: Bundle, backend: str) -> None:
    model = onnx.load(bundle.graph("corrector"))
    for value in (model.graph.input[1], model.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_value = 9
    onnx.save(model, bundle.graph("corrector"))
    seal(bundle.path, bundle.manifest)
    with pytest.raises((BundleError, BackendError)):
        open_backend(backend, Bundle.open(bundle.path))


@pytest.mark.parametrize("graph", IKC.graphs)
def test_a_graph_that_was_altered_after_opening_is_not_loaded(
    bundle: Bundle, backend: str, graph: str
) -> None:
    content = bytearray(bundle.graph(graph).read_bytes())
    content[-5] ^= 1
    bundle.graph(graph).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{graph}\.onnx' was altered"):
        open_backend(backend, bundle)
    bundle.graph(graph).write_bytes(content + b"x")
    with pytest.raises(BundleError, match="cut short or replaced"):
        open_backend(backend, bundle)


def external(tensor: TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "*/_ORT_MEM_ADDR_/*"])
def test_a_graph_that_keeps_weights_elsewhere_is_refused(
    bundle: Bundle, backend: str, location: str
) -> None:
    model = onnx.load(bundle.graph("predictor"))
    weight = next(w for w in model.graph.initializer if w.name == "weight")
    (bundle.path / "weights.bin").write_bytes(numpy_helper.to_array(weight).tobytes())
    external(weight, location)
    bundle.graph("predictor").write_bytes(model.SerializeToString())
    # Listed or not: a graph holds its own tensors.
    seal(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match="keeps tensors in other files"):
        open_backend(backend, Bundle.open(bundle.path))


def test_tensors_are_found_wherever_a_model_can_have_them() -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "t")
    external(tensor, "elsewhere")
    inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "g", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph([node], "outer", [], [])
    assert keeps_tensors_elsewhere(helper.make_model(outer).SerializeToString())
    function = helper.make_function("d", "F", [], ["y"], inner.node, [helper.make_opsetid("", 18)])
    empty = helper.make_graph([], "g", [], [])
    with_function = helper.make_model(empty, functions=[function])
    assert keeps_tensors_elsewhere(with_function.SerializeToString())
    assert not keeps_tensors_elsewhere(helper.make_model(empty).SerializeToString())


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_bytes_that_are_no_model_are_value_errors(noise: bytes, seed: int) -> None:
    model = helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()
    random = np.random.default_rng(seed)
    spoiled = bytearray(model + noise)
    spoiled[random.integers(len(spoiled))] = random.integers(256)
    for data in (noise, bytes(spoiled), model + struct.pack("<I", seed)):
        try:
            keeps_tensors_elsewhere(data)
        except ValueError as error:
            assert str(error)


def test_what_is_no_model_is_refused_before_onnx_runtime_sees_it(bundle: Bundle) -> None:
    bundle.graph("sftmd").write_bytes(b"ORTM" + os.urandom(64))
    seal(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match="is not an ONNX model"):
        read_graph(Bundle.open(bundle.path), "sftmd")


def test_a_code_that_is_not_a_number_is_an_error(bundle: Bundle, backend: str) -> None:
    model = onnx.load(bundle.graph("corrector"))
    weight = next(w for w in model.graph.initializer if w.name == "weight")
    values = np.full_like(numpy_helper.to_array(weight), np.nan)
    weight.CopyFrom(numpy_helper.from_array(values, "weight"))
    onnx.save(model, bundle.graph("corrector"))
    seal(bundle.path, bundle.manifest)
    frame = photo(16, 16)
    with ikc_deploy.load(Bundle.open(bundle.path), backend, 2) as upscaler:
        for estimate in ("full", "crops", "track"):
            with pytest.raises(BackendError, match="kernel code that is not finite"):
                upscaler(frame, estimate=estimate)
        assert upscaler(frame, sigma=1.0).image.shape == (64, 64, 3)
