"""Graphs that are not what they say: one thing is wrong with each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Change = Callable[[NDArray[Any]], NDArray[Any]]

KINDS: Final = ("identity", "zero", "scaled by 1.2", "scaled by 1.5", "swapped channels", "nan")


def sabotaged(content: bytes, kind: str) -> bytes:
    """An ONNX model with the same inputs and outputs that computes something else.

    "identity" gives back what came in: the corrector its code, F a blown-up frame, and the
    predictor, which has no input to give back, a code that does not depend on the frame.
    """
    model = onnx.load_from_string(content)
    if kind == "identity":
        _identity(model.graph)
    elif kind == "zero":
        for output in model.graph.output:
            _then(model.graph, output.name, "Mul", 0)
    elif kind == "nan":
        _change_weight(model, lambda weight: np.full_like(weight, np.nan))
    elif kind == "swapped channels":
        _change_weight(model, lambda weight: weight[[1, 0, *range(2, len(weight))]])
    else:
        factor = float(kind.split()[-1])
        _change_weight(model, lambda weight: (factor * weight).astype(weight.dtype))
    return model.SerializeToString()


def _change_weight(model: onnx.ModelProto, change: Change) -> None:
    """Change the weight of the middle convolution that has more than one channel out.

    Of one in 8 bits, its scales, or for another order of channels both.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv" and _groups(node) == 1]
    weight = convs[len(convs) // 2].input[1]
    names = [weight] if weight in constants else list(makers[weight].input[:2])
    values = [numpy_helper.to_array(constants[name]) for name in names]
    changed = [change(value) for value in values]
    if len(names) == 2 and np.array_equal(changed[1], values[1][[1, 0, *range(2, len(values[1]))]]):
        pass
    elif len(names) == 2:
        changed[0] = values[0]
    for name, value in zip(names, changed, strict=True):
        constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _groups(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _identity(graph: onnx.GraphProto) -> None:
    names = {output.name for output in graph.output}
    if "next_code" in names:
        _replace(graph, "next_code", [helper.make_node("Identity", ["code"], ["next_code"])])
        return
    if "code" in names:
        # Its own code, but of a frame of zeros.
        zero = numpy_helper.from_array(np.zeros((), _dtype(graph.input[0])), "nothing")
        graph.initializer.append(zero)
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == "lr":
                    node.input[index] = "black"
        graph.node.insert(0, helper.make_node("Mul", ["lr", "nothing"], ["black"]))
        return
    for output in graph.output:
        _then(graph, output.name, None, 1)


def _then(graph: onnx.GraphProto, name: str, operator: str | None, value: float) -> None:
    """Put an operation with a constant after what makes an output; None repeats pixels of `lr`."""
    output = next(each for each in graph.output if each.name == name)
    dtype = _dtype(output)
    for node in graph.node:
        for index, each in enumerate(node.output):
            if each == name:
                node.output[index] = f"{name}_before"
        for index, each in enumerate(node.input):
            if each == name:
                node.input[index] = f"{name}_before"
    if operator is not None:
        constant = numpy_helper.from_array(np.asarray(value, dtype), f"{name}_constant")
        graph.initializer.append(constant)
        inputs = [f"{name}_before", constant.name]
        graph.node.append(helper.make_node(operator, inputs, [name]))
        return
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    nodes = [helper.make_node("Cast", ["lr"], [f"{name}_lr"], to=TensorProto.FLOAT)]
    last = f"{name}_lr"
    if name == "sr":
        for tensor in (("sr_unit", np.float32(1 / 255)),):
            graph.initializer.append(numpy_helper.from_array(np.asarray(tensor[1]), tensor[0]))
        nodes.append(helper.make_node("Mul", [last, "sr_unit"], ["sr_scaled"]))
        nodes.append(helper.make_node("Transpose", ["sr_scaled"], ["sr_planes"], perm=[0, 3, 1, 2]))
        last = "sr_planes"
    shape = helper.make_node("Shape", [f"{name}_before"], [f"{name}_shape"])
    nodes += [
        shape,
        helper.make_node(
            "Resize", [last, "", "", f"{name}_shape"], [f"{name}_large"], mode="nearest"
        ),
        helper.make_node("Cast", [f"{name}_large"], [name], to=kind),
    ]
    graph.node.extend(nodes)


def _replace(graph: onnx.GraphProto, name: str, nodes: list[onnx.NodeProto]) -> None:
    for node in graph.node:
        for index, each in enumerate(node.output):
            if each == name:
                node.output[index] = f"{name}_before"
    graph.node.extend(nodes)


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
