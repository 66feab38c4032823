"""Conversion of float16 and INT8 graphs to float32 arithmetic, to check structure and weights.

Rounding of activations in float16 or 8 bits can hide a wrong layer. Therefore graphs are also
checked with float32 activations and rounded weights, where the same wrong layer exceeds its limit a
hundred times more clearly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ikc_deploy.errors import ExportError

_HALF: Final = TensorProto.FLOAT16
_FLOAT: Final = TensorProto.FLOAT


def widened(content: bytes) -> bytes:
    """Convert a serialised ONNX model to float32, and remove its pairs of quantisers.

    Args:
        content: Serialised ONNX model.

    Raises:
        ExportError: The quantisers of a pair differ in scale or zero point.
    """
    model = onnx.load_from_string(content)
    _without_quantizers(model.graph)
    _in_float32(model.graph)
    return model.SerializeToString(deterministic=True)


def _in_float32(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _FLOAT
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _FLOAT


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == _HALF:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _without_quantizers(graph: onnx.GraphProto) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            continue
        if node.op_type != "DequantizeLinear":
            nodes.append(node)
        elif node.input[0] in constants:
            values = _dequantized([numpy_helper.to_array(constants[name]) for name in node.input])
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            before = quantizers[node.input[0]]
            for pair in zip(before.input[1:], node.input[1:], strict=True):
                first, second = (numpy_helper.to_array(constants[name]) for name in pair)
                if not np.array_equal(first, second):
                    raise ExportError(f"'{node.name}' does not undo the scaling of '{before.name}'")
            nodes.append(helper.make_node("Identity", [before.input[0]], [node.output[0]]))
    del graph.node[:]
    graph.node.extend(nodes)


def _dequantized(inputs: list[NDArray[np.generic]]) -> NDArray[np.float32]:
    """Return the values of 8-bit weights `[O,...]`, their scales `[O]` and zero points `[O]`."""
    whole, scale, zero = (array.astype(np.float32) for array in inputs)
    shape = (-1, *[1] * (whole.ndim - 1))
    return (whole - zero.reshape(shape)) * scale.reshape(shape)
