from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import onnx.numpy_helper
import pytest

from ikc_deploy import Bundle, EngineError
from ikc_deploy.bundle.engine_store import read_engines
from ikc_deploy.bundle.measurements import Verification
from ikc_deploy.bundle.tensorrt_variants import load_tensorrt
from ikc_deploy.cli.ikc_export import main
from ikc_deploy.engines import verify
from ikc_deploy.engines.verify import VERIFIED_ITERS, compare, verify_engine
from ikc_deploy.loops import IKC
from ikc_deploy.typed_values import read_settings
from tests.cli.running import assert_one_clear_line, invoke
from tests.half import half_bundle, write_engine
from tests.machines import nvidia_smi

SIDE = 24


def onnx_runners(folder: Path, spoiled: str = "") -> dict[str, Any]:
    """Runners that stand in for plans: the graphs of a folder, one of them with other weights."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    runners = {}
    for graph in IKC.graphs:
        model = onnx.load(folder / f"{graph}.onnx")
        if graph == spoiled:
            (weight,) = (w for w in model.graph.initializer if w.name == "weight")
            changed = 1.3 * onnx.numpy_helper.to_array(weight)
            changed = changed.astype(onnx.numpy_helper.to_array(weight).dtype)
            weight.CopyFrom(onnx.numpy_helper.from_array(changed, "weight"))
        session = SessionFromOnnx(model.SerializeToString(), providers=["CPUExecutionProvider"])
        runners[graph] = OnnxrtRunner(session, name=f"plan-{graph}")
    return runners


def test_equal_graphs_pass_at_every_step(tmp_path: Path) -> None:
    bundle = half_bundle(tmp_path / "bundle")
    opinion = compare(bundle, onnx_runners(bundle.path), SIDE)
    assert opinion.passed
    assert [step.step for step in opinion.steps] == list(range(VERIFIED_ITERS + 1))
    assert all(step.image_db == 150 and step.code_error == 0 for step in opinion.steps)
    names = {
        graph: [(o.index, o.name) for o in outputs] for graph, outputs in opinion.graphs.items()
    }
    # Six frames; the steps of the loop, and then two codes far from its fixed point.
    assert names["predictor"] == [(i, "code") for i in range(6)]
    assert names["sftmd"] == [(i, n) for i in range(4 + 2) for n in ("sr", "frame")]
    assert names["corrector"] == [(i, "next_code") for i in range(3 + 2)]


@pytest.mark.parametrize("spoiled", IKC.graphs)
def test_a_plan_that_computes_something_else_fails_by_name(tmp_path: Path, spoiled: str) -> None:
    bundle = half_bundle(tmp_path / "bundle")
    opinion = compare(bundle, onnx_runners(bundle.path, spoiled), SIDE)
    assert not opinion.passed
    # The same inputs go to both, so that only the one graph is to blame.
    failed = {g for g in IKC.graphs if not all(output.passed for output in opinion.graphs[g])}
    assert failed == {spoiled}
    if spoiled != "sftmd":
        assert opinion.steps[-1].code_error


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle with an engine that would run here, were there a GPU, and one that would not."""
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX")
    nvidia_smi(tmp_path, "echo 'GPU, 580.0, 8192, 8.9'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bundle = half_bundle(tmp_path / "bundle")
    write_engine(bundle, "a", version=load_tensorrt("tensorrt-rtx").version)
    return write_engine(bundle, "b", version="1.0.0")


@pytest.mark.parametrize("spoiled", ["", "corrector"])
def test_the_result_goes_into_the_manifest(
    engines: Bundle, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    def plan_runner(engine: Any, graph: str, profile: int) -> Any:
        return onnx_runners(engine.bundle.path, spoiled)[graph]

    def in_this_process(folder: Path, engine: Any) -> Any:
        opinion = verify._verify_here(str(folder), engine.record.fingerprint)
        return read_settings(Verification, json.loads(json.dumps(asdict(opinion))))

    monkeypatch.setattr(verify, "_plan_runner", plan_runner)
    monkeypatch.setattr(verify, "_verify_in_subprocess", in_this_process)
    engine, _ = read_engines(engines)
    if spoiled:
        with pytest.raises(EngineError, match="engine a differs from ONNX Runtime"):
            verify_engine(engines, engine)
    else:
        done = invoke(main, "--bundle", engines.path, "--verify", "polygraphy")
        assert done.exit_code == 0, done.output
        assert "engine a against ONNX Runtime: passed" in done.stdout
    written = Bundle.open(engines.path).manifest.verified
    assert list(written) == ["a"]
    assert written["a"].passed is not bool(spoiled)
    assert set(written["a"].graphs) == set(IKC.graphs)


def test_where_the_plan_does_not_load_polygraphys_process_says_so(engines: Bundle) -> None:
    engine, _ = read_engines(engines)
    with pytest.raises(EngineError, match=r"engine a could not be compared with ONNX Runtime: .+"):
        verify_engine(engines, engine)
    assert Bundle.open(engines.path).manifest.verified == {}


def test_where_no_engine_runs_it_says_why_of_each(
    engines: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, "echo 'no devices were found'; exit 6")
    done = invoke(main, "--bundle", engines.path, "--verify", "polygraphy")
    words = ("no engine that can be compared", "a: there is no GPU here", "b: tensorrt-rtx 1.0.0")
    assert_one_clear_line(done, *words)
    _, other = read_engines(engines)
    with pytest.raises(EngineError, match=r"engine b cannot be compared .* On its target, run:"):
        verify_engine(engines, other)


def test_a_bundle_without_engines_has_nothing_to_compare(tmp_path: Path) -> None:
    bundle = half_bundle(tmp_path / "bundle")
    done = invoke(main, "--bundle", bundle.path, "--verify", "polygraphy")
    assert_one_clear_line(done, "it has none at all; add one with --engine")
    assert isinstance(compare(bundle, onnx_runners(bundle.path), SIDE), Verification)
