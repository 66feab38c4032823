"""Graphs that are cut between vectors and images compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ikc_deploy
from ikc_deploy import Bundle
from ikc_deploy.runtime.backends.openvino import OpenVino
from ikc_deploy.runtime.backends.openvino_devices import find_device, open_core
from ikc_deploy.runtime.backends.openvino_models import OpenVinoModels
from ikc_deploy.runtime.backends.vector_cut import cut_vectors
from tests.bundles import export_small
from tests.samples import photo

openvino = pytest.importorskip("openvino", reason="needs the extra openvino")

ON_IMAGES = {"Convolution", "GroupConvolution", "DepthToSpace", "Interpolate"}


@pytest.fixture(scope="module", params=["film", "compact", "dan2"])
def networks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_small(tmp_path_factory.mktemp(request.param), request.param)


def run(models: list[Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """Run models one after another in float32; return all their inputs and outputs by name."""
    known = dict(arrays)
    for model in models:
        compiled = open_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        given = {port: known[min(port.names & known.keys())] for port in compiled.inputs}
        for port, value in compiled(given).items():
            known |= dict.fromkeys(port.names, value)
    return known


def test_the_parts_compute_what_the_graph_computes(networks: Bundle) -> None:
    scale, random = networks.manifest.scale, np.random.default_rng(0)
    arrays = {
        "lr": random.integers(0, 256, (2, 12, 16, 3), dtype=np.uint8),
        "sr": random.random((2, 3, 12 * scale, 16 * scale), dtype=np.float32),
        "code": random.normal(size=(2, networks.manifest.code_size)).astype(np.float32),
    }
    for graph in networks.loop.graphs:
        whole = open_core().read_model(networks.graph(graph))
        given = {name: array for name, array in arrays.items() if name in _names(whole.inputs)}
        parts = cut_vectors(whole.clone())
        assert sum(not part.on_vectors for part in parts) == 1
        for part in parts:
            types = {node.get_type_name() for node in part.model.get_ordered_ops()}
            assert bool(types & ON_IMAGES) is not part.on_vectors
        wanted, found = run([whole], given), run([part.model for part in parts], given)
        for name in _names(whole.outputs):
            assert np.allclose(wanted[name], found[name], rtol=1e-4, atol=1e-4), (graph, name)


def _names(ports: Any) -> set[str]:
    return {name for port in ports for name in port.names}


def test_a_graph_without_vectors_stays_whole() -> None:
    from openvino import Model, opset13

    image = opset13.parameter([-1, 3, -1, -1], np.float32)
    model = Model([opset13.result(opset13.relu(image))], [image])
    (part,) = cut_vectors(model)
    assert part.model is model and not part.on_vectors


def test_a_vector_of_unknown_length_stays_with_the_images() -> None:
    from openvino import Model, opset13

    code, image = (opset13.parameter(shape, np.float32) for shape in ([-1, -1], [1, 3, -1, -1]))
    vector = opset13.relu(code)
    axes = opset13.constant(np.array([2, 3]))
    moved = opset13.add(image, opset13.unsqueeze(vector, axes))
    model = Model([opset13.result(moved)], [code, image])
    assert [part.on_vectors for part in cut_vectors(model)] == [False]


def test_an_output_that_depends_on_no_input_is_kept() -> None:
    from openvino import Model, opset13

    code = opset13.parameter([-1, 4], np.float32)
    axes = opset13.constant(np.array([2, 3]))
    plane = opset13.unsqueeze(opset13.relu(code), axes)
    fixed = opset13.constant(np.ones((1, 4), np.float32))
    fixed.output(0).set_names({"fixed"})
    plane.output(0).set_names({"plane"})
    parts = cut_vectors(Model([opset13.result(each) for each in (plane, fixed)], [code]))
    assert [part.on_vectors for part in parts] == [True, False, True]
    assert {"fixed", "plane"} <= set().union(*(_names(part.model.outputs) for part in parts))


def test_the_backend_runs_all_parts(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without 16 bits, which few CPUs have: the parts are those of bfloat16, all in float32."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    frame, images = photo(40, 24), []
    device = find_device(open_core(), "CPU")
    for cut in (False, True, True):
        if cut:
            monkeypatch.setattr(OpenVinoModels, "_precision", lambda *_: "f32")
            device = _claiming(device)
        precision = "bf16" if cut else "f32"
        backend = OpenVino.open(small_bundle, precision=precision, threads=1, found=device)
        with ikc_deploy.Upscaler(small_bundle, backend, iters=2) as upscaler:
            images.append([upscaler(frame[: 8 * rows]).image.astype(int) for rows in (5, 3)])
    for whole, compiled, imported in zip(*images, strict=True):
        assert abs(whole - compiled).max() <= 1
        assert np.array_equal(compiled, imported)


def _claiming(device: Any) -> Any:
    from dataclasses import replace

    return replace(device, capabilities=device.capabilities | {"BF16"})
