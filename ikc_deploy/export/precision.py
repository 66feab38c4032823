"""FP16 as a property of the graph: which operations are float16, and the count that proves it.

Convolutions are float16. Kernel codes, linear layers on them, means, statistics and the final clamp
are float32.
"""

from __future__ import annotations

from collections import Counter
from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import nn

from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.errors import ExportError

if TYPE_CHECKING:
    import onnx


def to_half(module: nn.Module) -> nn.Module:
    """Convert every convolution of `module` to float16, in place; the rest stays float32."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.half()
    return module


def body_dtype(precision: Precision) -> torch.dtype:
    """Return the dtype of convolutions of a traced graph in this precision."""
    return torch.float16 if precision == "fp16" else torch.float32


def conv_precision(path: str | PathLike[str]) -> dict[str, int]:
    """Return the number of Conv nodes of an ONNX file by dtype of weights, as {"float16": 34}."""
    import onnx

    return dict(Counter(dtype for _, dtype in _conv_dtypes(onnx.load(path))))


def check_precision(path: str | PathLike[str], precision: Precision) -> dict[str, int]:
    """Return the number of Conv nodes of an ONNX file by dtype of weights.

    Raises:
        ExportError: Convolutions have another dtype than that of `precision`; some are named.
    """
    import onnx

    wanted = "float16" if precision == "fp16" else "float32"
    found = _conv_dtypes(onnx.load(path))
    wrong = [f"{name} ({dtype})" for name, dtype in found if dtype != wanted]
    if wrong:
        raise ExportError(
            f"{len(wrong)} of {len(found)} convolutions in '{path}' are not {wanted}: "
            + ", ".join(wrong[:5])
        )
    return dict(Counter(dtype for _, dtype in found))


def _conv_dtypes(model: onnx.ModelProto) -> list[tuple[str, str]]:
    import onnx

    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    # Last, because a weight's own type has priority over an annotation.
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    # A quantised weight is stored in 8 bits, and a node converts it to float.
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in types:
            types[node.output[0]] = types[node.input[0]]
    names = {value: key.lower() for key, value in onnx.TensorProto.DataType.items()}
    names[onnx.TensorProto.FLOAT] = "float32"
    return [
        (node.name, names[types.get(node.input[1], onnx.TensorProto.UNDEFINED)])
        for node in graph.node
        if node.op_type == "Conv"
    ]
