"""Memory of a graph's tensors, by following a run of the graph without computing anything."""

from __future__ import annotations

import math
from os import PathLike
from typing import Final

import onnx
from onnx import shape_inference

from ikc_deploy.loops import SR

_SIDE: Final = 128
"""Side of the LR frame in pixels for which tensors are counted; at this size, tensors that do not
grow with the frame hardly count."""

_IN_PLACE: Final = frozenset(
    {"Add", "Cast", "Clip", "Div", "Identity", "LeakyRelu", "Mul"}
    | {"Relu", "Reshape", "Sigmoid", "Squeeze", "Sub", "Unsqueeze"}
)
"""Operators that may write their output over an input that no later node reads."""


def activation_bytes(path: str | PathLike[str], scale: int) -> int:
    """Return the peak size of the tensors of a graph that exist at the same time.

    Weights are not counted, nor are the few small tensors whose shape cannot be inferred. Every
    element counts as 4 bytes, because CPUs compute float16 in float32.

    Args:
        path: ONNX file of a graph of a loop.
        scale: Scale factor of the bundle.

    Returns:
        Number of bytes for each LR pixel of one frame.
    """
    graph = _with_shapes(onnx.load(path), scale).graph
    sizes = {each.name: _size(each) for each in (*graph.input, *graph.value_info, *graph.output)}
    last_use = {name: number for number, node in enumerate(graph.node) for name in node.input}
    kept = {each.name for each in graph.output}
    live = peak = sum(sizes[each.name] for each in graph.input)
    for number, node in enumerate(graph.node):
        made = sum(sizes.get(name, 0) for name in node.output)
        read = {name for name in node.input if last_use[name] == number} - kept
        freed = sum(sizes.get(name, 0) for name in read)
        peak = max(peak, live + made - (freed if node.op_type in _IN_PLACE else 0))
        live += made - freed
    return math.ceil(peak / _SIDE**2)


def _with_shapes(model: onnx.ModelProto, scale: int) -> onnx.ModelProto:
    """Return the model for a batch of one frame, with the shapes of all tensors."""
    for each in model.graph.input:
        side = scale * _SIDE if each.name == SR else _SIDE
        for dimension in each.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = 1 if dimension.dim_param == "batch" else side
    # What the trace says of the other tensors is symbolic.
    del model.graph.value_info[:]
    for each in model.graph.output:
        each.type.tensor_type.ClearField("shape")
    return shape_inference.infer_shapes(model, data_prop=True)


def _size(value: onnx.ValueInfoProto) -> int:
    # The product is 0 where a side is unknown.
    return 4 * math.prod(each.dim_value for each in value.type.tensor_type.shape.dim)
