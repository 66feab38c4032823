"""Layer precision: the dtypes of the layers that TensorRT's parser created, and their check.

The graph determines the precision (docs/adr/0003) and the network is strongly typed, so the dtypes
after parsing are those of the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ikc_deploy.bundle.engine_store import LayerPrecision
from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.errors import EngineError

CODES: Final = frozenset({"code", "next_code"})
"""Names of the graphs' inputs and outputs that are kernel codes."""

_CONVOLUTIONS: Final = frozenset({"CONVOLUTION", "DECONVOLUTION"})
_FLOATS: Final = frozenset({"FLOAT", "HALF", "BF16", "FP8", "FP4"})
_NAMED: Final = 5


def layer_precision(network: Any) -> LayerPrecision:
    """Return the numbers of layers of an `INetworkDefinition` by type and dtype of first output."""
    precisions: LayerPrecision = {}
    for layer in _layers(network):
        counts = precisions.setdefault(layer.type.name, {})
        dtype = layer.get_output(0).dtype.name
        counts[dtype] = counts.get(dtype, 0) + 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(precisions.items())}


def check_layer_precision(network: Any, graph: str, precision: Precision) -> LayerPrecision:
    """Check the precision of convolutions and kernel codes; return the layer precision.

    Args:
        network: `INetworkDefinition` of a parsed graph.
        graph: Name of the graph, for messages.
        precision: Precision of the bundle. In INT8 graphs the convolutions are float32 between
            quantisers, until TensorRT builds.

    Raises:
        EngineError: A convolution has another precision, or a kernel code is not float32; the
            message names the layers.
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
    codes = sorted(set(_codes_below_float32(network)))
    if codes:
        raise EngineError(
            f"kernel codes must be float32, and in TensorRT's {graph} they are not: "
            f"{', '.join(codes[:_NAMED])}; export the graphs again with ikc-export"
        )
    return layer_precision(network)


def _codes_below_float32(network: Any) -> Iterator[str]:
    """Yield kernel codes that are not float32, and their layers that have another float dtype."""
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
    """Return the floating dtypes of the inputs and outputs of a layer."""
    return {tensor.dtype.name for tensor in _inputs(layer) + _outputs(layer)} & _FLOATS


def _inputs(layer: Any) -> list[Any]:
    # Missing optional inputs are None.
    tensors = [layer.get_input(i) for i in range(layer.num_inputs)]
    return [tensor for tensor in tensors if tensor is not None]


def _outputs(layer: Any) -> list[Any]:
    return [layer.get_output(i) for i in range(layer.num_outputs)]


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]
