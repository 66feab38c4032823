"""The tensors of a graph that exist at the same time, on graphs that are counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from ikc_deploy.export.activations import activation_bytes

WEIGHTS = {"first": (16, 3, 1, 1), "middle": (16, 16, 1, 1), "last": (3, 16, 1, 1)}
LR, SR = "float[batch,3,height,width] lr", "float[batch,3,sr_height,sr_width] sr"


@pytest.mark.parametrize(
    ("inputs", "nodes", "channels"),
    [
        # The second convolution reads 16 channels and writes 16.
        (LR, "a = Conv(lr, first) b = Conv(a, middle) out = Conv(b, last)", 32),
        # Relu works in place, and the skip stays beside what the second convolution needs.
        (
            LR,
            "a = Conv(lr, first) b = Relu(a) c = Conv(b, middle) d = Relu(c) "
            "e = Conv(d, middle) f = Add(e, b) out = Conv(f, last)",
            48,
        ),
        # Nothing is needed of an output that no node reads.
        (LR, "a = Conv(lr, first) b, unread = Split(a, halves) out = Relu(b)", 32),
        # Three channels with 4x4 pixels for each LR pixel, and sixteen.
        (SR, "a = Conv(sr, first) out = Conv(a, last)", 16 * (3 + 16)),
    ],
)
def test_peaks_are_those_of_a_count_by_hand(
    tmp_path: Path, inputs: str, nodes: str, channels: int
) -> None:
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>'
        f"g ({inputs}) => (float[n,c,h,w] out) {{ {nodes} }}"
    )
    tensors = {name: np.zeros(shape, np.float32) for name, shape in WEIGHTS.items()}
    for name, tensor in {**tensors, "halves": np.array([8, 8])}.items():
        model.graph.initializer.append(numpy_helper.from_array(tensor, name))
    for node in model.graph.node:
        if node.op_type == "Split":
            node.attribute.append(onnx.helper.make_attribute("axis", 1))
    onnx.save(model, tmp_path / "g.onnx")
    assert activation_bytes(tmp_path / "g.onnx", 4) == 4 * channels
