"""The layer precision: what TensorRT's parser made of a graph, counted, and what must not be.

Precision is a property of the graph (docs/adr/0003), and the network is strongly typed, so
the dtypes after parsing are those that the kernels will have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ikc_deploy.bundle.engine_store import LayerPrecision
from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.errors import EngineError

CODES: Final = frozenset({"code", "next_code"})
"""The graphs' inputs and outputs that are kernel codes."""

_CONVOLUTIONS: Final = frozenset({"CONVOLUTION", "DECONVOLUTION"})
_FLOATS: Final = frozenset({"FLOAT", "HALF", "BF16", "FP8", "FP4"})
_NAMED: Final = 5


def layer_precision(network: Any) -> LayerPrecision:
    """The layers of an `INetworkDefinition` by type and by the dtype of their first output."""
    precisions: LayerPrecision = {}
    for layer in _layers(network):
        counts = precisions.setdefault(layer.type.name, {})
        dtype = layer.get_output(0).dtype.name
        counts[dtype] = counts.get(dtype, 0) + 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(precisions.items())}


def check_layer_precision(network: Any, graph: str, precision: Precision) -> LayerPrecision:
    """The layer precision, if all convolutions have the precision and all kernel codes are float32.

    In INT8 graphs the convolutions are float32 between quantisers, until TensorRT builds.

    Raises `EngineError` naming the layers that are not as they must be.
    """
    wanted = "HALF" if precision == "fp16" else "FLOAT"
    convolutions = [layer for layer in _layers(network) if layer.type.name in _CONVOLUTIONS]
    wrong = [
        f"{layer.name} ({', '.join(sorted(dtypes))})"
        for layer in convolutions
        if (dtypes := _dtypes(layer)) != {wanted}
    ]
    if wrong:
        raise EngineError(
            f"{len(wrong)} of {len(convolutions)} convolutions of the {graph} are not {wanted} in "
            f"TensorRT: {', '.join(wrong[:_NAMED])}; export the graphs again with ikc-export"
        )
    codes = sorted(set(_low_codes(network)))
    if codes:
        raise EngineError(
            f"kernel codes must be float32, and in TensorRT's {graph} they are not: "
            f"{', '.join(codes[:_NAMED])}; export the graphs again with ikc-export"
        )
    return layer_precision(network)


def _low_codes(network: Any) -> Iterator[str]:
    """Kernel codes that are not float32, or that a layer takes from or turns into less."""
    ends = [network.get_input(i) for i in range(network.num_inputs)]
    ends += [network.get_output(i) for i in range(network.num_outputs)]
    for tensor in ends:
        if tensor.name in CODES and tensor.dtype.name != "FLOAT":
            yield f"{tensor.name} ({tensor.dtype.name})"
    for layer in _layers(network):
        inputs, outputs = _inputs(layer), _outputs(layer)
        if not CODES & {tensor.name for tensor in inputs + outputs}:
            continue
        low = _dtypes(layer) - {"FLOAT"}
        if low:
            yield f"{layer.name} ({', '.join(sorted(low))})"


def _dtypes(layer: Any) -> set[str]:
    """Floating dtypes of everything that goes into or comes out of a layer."""
    return {tensor.dtype.name for tensor in _inputs(layer) + _outputs(layer)} & _FLOATS


def _inputs(layer: Any) -> list[Any]:
    # Optional inputs that are not given are None.
    tensors = [layer.get_input(i) for i in range(layer.num_inputs)]
    return [tensor for tensor in tensors if tensor is not None]


def _outputs(layer: Any) -> list[Any]:
    return [layer.get_output(i) for i in range(layer.num_outputs)]


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]
