from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from ikc_deploy import Bundle, EngineError
from ikc_deploy.engines.builder import build_plan
from ikc_deploy.engines.toolchain import Toolchain
from ikc_deploy.loops import IKC
from tests.engines.conftest import TARGET
from tests.half import half_bundle

CONV = "Conv <pads = [1, 1, 1, 1]>"


def refuse(bundle: Bundle, graph: str, rtx: Toolchain, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence):
        build_plan(bundle, graph, rtx, TARGET, lambda *_: None)


def test_the_census_agrees_with_the_onnx_file(half: Bundle, rtx: Toolchain) -> None:
    for graph in IKC.graphs:
        precisions = build_plan(half, graph, rtx, TARGET, lambda *_: None).layer_precision
        nodes = Counter(node.op_type for node in onnx.load(half.graph(graph)).graph.node)
        assert precisions["CONVOLUTION"] == {"HALF": nodes["Conv"]}
        assert precisions.get("MATRIX_MULTIPLY", {}).get("FLOAT", 0) == nodes["MatMul"]
        assert precisions.get("REDUCE", {}).get("FLOAT", 0) == nodes["ReduceMean"]


def test_a_smuggled_float32_convolution_fails_the_build_by_name(
    tmp_path: Path, rtx: Toolchain
) -> None:
    smuggled = f"""wide_sr = Cast <to = 1> (sr)
        sneaky = {CONV} (wide_sr, weight)
        features = Cast <to = 10> (sneaky)"""
    change = {f"features = {CONV} (sr, weight)": smuggled}
    bundle = half_bundle(tmp_path / "b", change, full=("corrector",))
    sentence = r"1 of 1 convolutions of the corrector are not HALF .*node_sneaky \(FLOAT\)"
    refuse(bundle, "corrector", rtx, sentence)
    assert build_plan(bundle, "predictor", rtx, TARGET, lambda *_: None).data


MEAN = "ReduceMean <keepdims = 0> (full, space)"


@pytest.mark.parametrize(
    ("graph", "change", "named"),
    [
        (
            "sftmd",
            {
                "bias = MatMul (code, mix)": "small = Cast <to = 10> (code)\n"
                "back = Cast <to = 1> (small)\n bias = MatMul (back, mix)"
            },
            r"node_small \(HALF\)",
        ),
        (
            "corrector",
            {
                "next_code = Add (code, change)": "sum = Add (code, change)\n"
                "small = Cast <to = 10> (sum)\n next_code = Cast <to = 1> (small)"
            },
            r"node_next_code \(HALF\)",
        ),
        (
            "predictor",
            {
                "(float[N,10] code)\n        <float unit": "(float16[N,10] code) <float unit",
                f"code = {MEAN}": f"mean = {MEAN}\n code = Cast <to = 10> (mean)",
            },
            r"code \(HALF\)",
        ),
    ],
    ids=["taken as half", "made from half", "given as half"],
)
def test_a_float16_kernel_code_fails_the_build_by_name(
    tmp_path: Path, rtx: Toolchain, graph: str, change: dict[str, str], named: str
) -> None:
    bundle = half_bundle(tmp_path / "b", change)
    refuse(bundle, graph, rtx, f"codes must be float32, and in TensorRT's {graph} .*{named}")
