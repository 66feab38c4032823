"""The gate of exports and the table of engines, against graphs with one thing wrong each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from ikc_deploy import Bundle, BundleError, ExportError
from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.bundle.measurements import Deviation, Parity, Verification
from ikc_deploy.engines.verify import compare
from ikc_deploy.export import calibration, exporter
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.graphs import export_graphs
from ikc_deploy.export.parity import check_parity, measure_parity
from ikc_deploy.export.widening import widened
from ikc_deploy.loops import IKC
from ikc_deploy.networks.weights_loader import Weights, load_weights
from ikc_deploy.runtime.backends.onnx_sessions import EXACT_INT8
from tests.bundles import save_busy
from tests.export.sabotage import KINDS, sabotaged
from tests.sealing import seal

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return load_weights(str(save_busy(tmp_path_factory.mktemp("busy"))))


@pytest.fixture(scope="module", params=PRECISIONS)
def exported(
    request: pytest.FixtureRequest,
    weights: Weights,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """An honest export, which passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_MADE", 4)
        patch.setattr(calibration, "_SIDE", 64)
        # What 8 bits cost networks that upscale nothing is not the question here.
        for limit in ("MAX_MEDIAN_LOSS", "MAX_WORST_LOSS"):
            patch.setattr(calibration, limit, 100.0)
        folder = tmp_path_factory.mktemp("exported") / "bundle"
        return export_bundle(weights, folder, ExportSettings(request.param))


def three_kinds(first: int) -> dict[str, str]:
    """A kind of sabotage for each graph; over all `first`, every graph meets every kind.

    Two places apart, at least one of them is more than subtle.
    """
    return {graph: KINDS[(first + 2 * i) % len(KINDS)] for i, graph in enumerate(IKC.graphs)}


@pytest.mark.parametrize("first", range(len(KINDS)))
def test_every_sabotaged_graph_is_refused_by_the_export(
    exported: Bundle, weights: Weights, tmp_path: Path, first: int
) -> None:
    folder = tmp_path / "bundle"
    changed = {
        graph: sabotaged(exported.graph_bytes(graph), kind)
        for graph, kind in three_kinds(first).items()
    }
    copied(exported, folder, changed)
    parity = exported.manifest.parity
    assert parity is not None
    check_parity(parity, exported.manifest.precision)
    found = measure_parity(weights.networks, Bundle.open(folder), parity.int8)
    with pytest.raises(ExportError) as refused:
        check_parity(found, exported.manifest.precision)
    assert all(f"{graph}, weights" in str(refused.value) for graph in IKC.graphs)


@pytest.mark.parametrize("exported", ["fp16"], indirect=True)
@pytest.mark.parametrize("graph", IKC.graphs)
def test_only_the_sabotaged_graph_is_blamed(
    exported: Bundle, weights: Weights, tmp_path: Path, graph: str
) -> None:
    """The same inputs go to both sides, whatever the graph before returns."""
    folder = tmp_path / "bundle"
    wrong = sabotaged(exported.graph_bytes(graph), "scaled by 1.5")
    copied(exported, folder, {graph: wrong})
    found = measure_parity(weights.networks, Bundle.open(folder))
    blamed = {name for name, each in found.graphs.items() if not each.weights.passed}
    assert blamed == {graph}
    content = {name: exported.graph_bytes(name) for name in IKC.graphs}
    opinion = compare(exported, runners(content | {graph: wrong}), 24)
    assert failed_engines(opinion) == {graph}


SUBTLE = ("scaled by 1.2", "swapped channels")
"""Less than what two ways to compute 8-bit graphs differ by."""


@pytest.mark.parametrize("first", range(len(KINDS)))
def test_every_sabotaged_engine_is_refused_by_polygraphys_table(
    exported: Bundle, first: int
) -> None:
    kinds = three_kinds(first)
    content = {graph: sabotaged(exported.graph_bytes(graph), kind) for graph, kind in kinds.items()}
    opinion = compare(exported, runners(content), 24)
    assert not opinion.passed
    wanted = set(IKC.graphs)
    if exported.manifest.precision == "int8":
        subtle = {(graph, kind) for graph in IKC.graphs for kind in SUBTLE}
        subtle.add(("sftmd", "scaled by 1.5"))
        wanted = {graph for graph, kind in kinds.items() if (graph, kind) not in subtle}
    assert wanted and failed_engines(opinion) >= wanted


def failed_engines(opinion: Verification) -> set[str]:
    return {name for name in IKC.graphs if not all(o.passed for o in opinion.graphs[name])}


def test_an_honest_engine_that_rounds_elsewhere_passes(exported: Bundle) -> None:
    """The widened graphs round nothing; ONNX Runtime's own, without fusions, round the most."""
    plain = {name: exported.graph_bytes(name) for name in IKC.graphs}
    assert compare(exported, runners(plain, optimized=False), 24).passed
    if exported.manifest.precision == "fp16":
        graphs = {name: widened(exported.graph_bytes(name)) for name in ("predictor",)}
        assert compare(exported, runners(plain | graphs), 24).passed


def test_a_quantiser_that_does_not_undo_its_own_scale_is_refused(
    exported: Bundle,
) -> None:
    if exported.manifest.precision != "int8":
        pytest.skip("only 8-bit graphs have quantisers")
    model = onnx.load_from_string(exported.graph_bytes("predictor"))
    constants = {tensor.name for tensor in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    node = next(n for n in pairs if n.input[0] not in constants)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "other"))
    node.input[1] = "other"
    with pytest.raises(ExportError, match="does not undo the scaling"):
        widened(model.SerializeToString())


@pytest.mark.parametrize("kind", ["zero", "scaled by 1.5"])
def test_the_export_itself_stops_and_writes_nothing(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    original = export_graphs

    def wrong(*arguments: Any) -> dict[str, Path]:
        paths = original(*arguments)
        paths["corrector"].write_bytes(sabotaged(paths["corrector"].read_bytes(), kind))
        return paths

    monkeypatch.setattr(exporter, "export_graphs", wrong)
    with pytest.raises(ExportError, match=r"differ .*corrector, weights.*No bundle was written"):
        export_bundle(weights, tmp_path / "out", ExportSettings("fp16"))
    assert not (tmp_path / "out").exists()


def test_engines_are_not_judged_without_what_rounding_costs(
    exported: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    copied(exported, folder, {})
    seal(folder, replace(exported.manifest, parity=None))
    bundle = Bundle.open(folder)
    content = {name: bundle.graph_bytes(name) for name in IKC.graphs}
    with pytest.raises(BundleError, match="has no rounding errors of its graphs"):
        compare(bundle, runners(content), 24)
    assert isinstance(exported.manifest.parity, Parity)
    assert not Deviation(float("nan"), 1.0, 3.0).passed


def copied(bundle: Bundle, folder: Path, changed: dict[str, bytes]) -> None:
    """Seal a copy of `bundle` with other graphs in `folder`."""
    folder.mkdir()
    for name in bundle.files:
        (folder / name).write_bytes(bundle.read(name))
    for graph, content in changed.items():
        (folder / f"{graph}.onnx").write_bytes(content)
    seal(folder, bundle.manifest)


def runners(graphs: dict[str, bytes], optimized: bool = True) -> dict[str, Any]:
    """What stands in for plans: graphs in ONNX Runtime."""
    from polygraphy.backend.onnxrt import OnnxrtRunner

    return {
        name: OnnxrtRunner(partial(session, content, optimized), name=f"plan-{name}")
        for name, content in graphs.items()
    }


def session(content: bytes, optimized: bool) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry(*EXACT_INT8)
    settings.log_severity_level = 4
    if not optimized:
        none = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.graph_optimization_level = none
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
