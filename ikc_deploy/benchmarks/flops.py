"""The work of ONNX graphs: multiply-accumulates, and bytes of activations and weights.

Counted on the written files at a given frame size, so the counts are those of the graphs that run.
Needs onnx (the `export` extra).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ikc_deploy.benchmarks.case import BenchmarkCase
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import needs_extra
from ikc_deploy.loops import Loop

_FREE: Final = {"Shape", "Constant", "ConstantOfShape", "Reshape", "Unsqueeze", "Squeeze", "Gather"}
"""Operations that do not move pixels."""

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Work:
    """The work of one operation or of a whole graph."""

    macs: int = 0
    """Number of multiply-accumulates of convolutions and matrix products; one is two FLOP."""
    elements_in: int = 0
    """Number of activation values read."""
    elements_out: int = 0
    """Number of activation values written."""
    weights: int = 0
    """Number of constants read."""

    def bytes(self, size: int) -> int:
        """Return the bytes read and written, with values of `size` bytes."""
        return size * (self.elements_in + self.elements_out + self.weights)


def graph_work(path: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[tuple[str, Work]]:
    """Return (operator type, work) of every operation of a graph, in order.

    Args:
        path: ONNX file.
        inputs: Shapes of the graph's inputs by name.

    Raises:
        MissingExtraError: onnx is not installed.
        ValueError: The shape of a convolution does not follow from the inputs.
    """
    with needs_extra("export", "Counting what graphs do"):
        import onnx
        from onnx import shape_inference
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, inputs[value.name], strict=True):
            dim.dim_value = size
    # Symbolic sizes of the export would override the sizes that follow from the inputs.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes: Shapes = dict(constants)
    for value in (*graph.input, *graph.value_info, *graph.output):
        found = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in found):
            shapes[value.name] = tuple(dim.dim_value for dim in found)
    return [(node.op_type, _node_work(node, shapes, constants)) for node in graph.node]


def bundle_work(bundle: Bundle, case: BenchmarkCase) -> dict[str, list[tuple[str, Work]]]:
    """Return `graph_work` of the loop's graphs for the frames of `case`, by graph."""
    manifest = bundle.manifest
    batch, scale = case.batch, manifest.scale
    code = (batch, manifest.code_size)
    lr: tuple[int, ...] = (batch, case.height, case.width, 3)
    if manifest.io == "float":
        lr = (batch, 3, case.height, case.width)
    sr = (batch, 3, scale * case.height, scale * case.width)
    inputs = {"lr": lr, "code": code, "sr": sr}
    return {name: graph_work(bundle.graph(name), inputs) for name in bundle.loop.graphs}


def loop_macs(bundle: Bundle, case: BenchmarkCase) -> int:
    """Return the multiply-accumulates of one call of the whole loop."""
    per_graph = {
        name: sum(work.macs for _, work in nodes)
        for name, nodes in bundle_work(bundle, case).items()
    }
    return loop_total(bundle.loop, per_graph, case.iters)


def loop_total(loop: Loop, per_graph: Mapping[str, Any], iters: int) -> Any:
    """Return the total of a quantity over the loop, given that of each network."""
    return sum(count * per_graph[name] for name, count in loop.passes(iters).items())


def _node_work(node: Any, shapes: Shapes, constants: Shapes) -> Work:
    if node.op_type in _FREE or not all(name in shapes for name in node.output):
        if node.op_type == "Conv":
            raise ValueError(f"the size of {node.name} does not follow from the inputs")
        return Work()
    out = shapes[node.output[0]]
    macs = 0
    if node.op_type == "Conv":
        # A QDQ graph's weights are dequantised constants: shapes, but no initialisers.
        macs = math.prod(out) * math.prod(shapes[node.input[1]][1:])
    elif node.op_type in ("MatMul", "Gemm") and node.input[0] in shapes:
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        macs = math.prod(out) * shapes[node.input[0]][0 if transposed else -1]
    reads = [name for name in node.input if name in shapes and name not in constants]
    return Work(
        macs=macs,
        elements_in=sum(math.prod(shapes[name]) for name in reads),
        elements_out=sum(math.prod(shapes[name]) for name in node.output),
        weights=sum(math.prod(constants[name]) for name in node.input if name in constants),
    )
