from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from ikc_deploy import Bundle
from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.flops import bundle_work, graph_work, loop_macs
from ikc_deploy.benchmarks.torch_loops import TorchLoopRunner, TorchSettings
from ikc_deploy.errors import InputError
from ikc_deploy.export.graphs import OPSET
from tools.measuring.roofline import Card, predict, read_cards


def test_a_convolution_by_hand(tmp_path: Path) -> None:
    node = make_node(
        "Conv", ["input", "weight", "bias"], ["y"], strides=[2, 2], pads=[1] * 4, group=2
    )
    sizes: dict[str, list[str | int | None]] = {
        "input": ["batch", 6, "height", "width"],
        "y": ["batch", 8, None, None],
    }
    values = {
        name: make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()
    }
    weights = {"weight": np.ones((8, 3, 3, 3), np.float32), "bias": np.ones(8, np.float32)}
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = make_graph([node], "conv", [values["input"]], [values["y"]], constants)
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", OPSET)]), tmp_path / "conv.onnx")
    (found,) = graph_work(tmp_path / "conv.onnx", {"input": (3, 6, 10, 20)})
    kind, work = found
    assert kind == "Conv"
    outputs = 3 * 8 * 5 * 10
    assert work.macs == outputs * (6 // 2) * 9
    assert (work.elements_in, work.elements_out) == (3 * 6 * 10 * 20, outputs)
    assert work.weights == 8 * 3 * 9 + 8
    assert work.bytes(2) == 2 * (work.elements_in + outputs + work.weights)


def test_the_loop_counts_every_pass_and_grows_with_the_frame(small_bundle: Bundle) -> None:
    per_graph = {
        name: sum(work.macs for _, work in nodes)
        for name, nodes in bundle_work(small_bundle, BenchmarkCase(16, 24)).items()
    }
    assert all(per_graph.values())
    expected = per_graph["predictor"] + 4 * per_graph["sftmd"] + 3 * per_graph["corrector"]
    assert loop_macs(small_bundle, BenchmarkCase(16, 24, iters=3)) == expected
    one, four = (loop_macs(small_bundle, BenchmarkCase(side, side, iters=0)) for side in (32, 64))
    assert 3.9 < four / one <= 4


def test_the_graphs_need_no_more_than_the_plain_networks_by_torchs_count(
    small_bundle: Bundle, small_checkpoint: Path
) -> None:
    case = BenchmarkCase(24, 24, iters=2)
    settings = TorchSettings()
    plain = TorchLoopRunner(Subject(str(small_checkpoint)), case, settings).macs()
    assert plain and 0.5 * plain < loop_macs(small_bundle, case) < 1.05 * plain


def test_a_prediction_is_bounded_by_arithmetic_and_by_traffic(small_bundle: Bundle) -> None:
    case = BenchmarkCase(64, 64, iters=2)
    slow_memory = predict(small_bundle, case, Card("a", tflops=1e6, gigabytes=1, source=""))
    slow_arithmetic = predict(small_bundle, case, Card("b", tflops=0.001, gigabytes=1e9, source=""))
    macs = loop_macs(small_bundle, case)
    assert slow_arithmetic.fused == pytest.approx(1e3 * 2 * macs / 1e9, rel=1e-6)
    assert slow_arithmetic.unfused == pytest.approx(slow_arithmetic.fused, rel=1e-3)
    assert slow_memory.unfused > 1.2 * slow_memory.fused > 0


def test_the_cards_of_the_workbench_load_and_bad_ones_do_not(
    repository: Path, tmp_path: Path
) -> None:
    cards = read_cards(repository / "benchmarks" / "cards.toml")
    assert len(cards) >= 3 and all(card.source for card in cards)
    for text in ("[a]\ntflops = 1\n", "not toml"):
        (tmp_path / "cards.toml").write_text(text)
        with pytest.raises(InputError, match="does not hold cards"):
            read_cards(tmp_path / "cards.toml")
    with pytest.raises(InputError, match="must be positive"):
        Card("a", tflops=0, gigabytes=1, source="")
