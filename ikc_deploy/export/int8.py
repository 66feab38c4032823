"""INT8 as a property of the graph: convolutions between quantisers, calibrated on images.

Inputs and outputs of every chosen convolution are rounded to 8 bits; all operations between
convolutions (skips, modulation, statistics, codes) stay in float32. Activations are symmetric with
one scale per tensor, weights symmetric with one scale per output channel, biases float32: the form
that TensorRT accepts directly. ONNX Runtime converts it to integer convolutions.

A scale is not the largest observed value divided by 127, but the one with the smallest mean squared
error: a few extreme values are clipped for a finer resolution of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ikc_deploy.files import write_atomically

Feeds = Sequence[Mapping[str, NDArray[Any]]]
"""Inputs of a graph by name, one mapping for each run."""

LEVELS: Final = 127
"""Number of 8-bit levels on either side of 0."""
_KEPT: Final = 4096
"""Number of values of a tensor that are kept of each run."""
_CLIPS: Final = np.linspace(0.4, 1.0, 31)
"""Clipping thresholds to try, as shares of the largest observed value."""
MIN_CHANNELS: Final = 16
"""Fewest input channels of a quantised convolution; below, 8 bits save little and lose most."""


def quantize_graph(path: Path, feeds: Feeds, keep: Iterable[str] = ()) -> None:
    """Quantise the convolutions of an ONNX file in place.

    Args:
        path: float32 graph; it is replaced atomically.
        feeds: Inputs for the calibration.
        keep: Names of the weights of convolutions that stay in float32.
    """
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = set(keep)
    chosen = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.input[1] not in kept
        and weights[node.input[1]].dims[1] >= MIN_CHANNELS
    ]
    if not chosen:
        return
    for node in chosen:
        _bias_after(model.graph, node)
    _drop_unused(model.graph)
    scales = _scales(model, [name for n in chosen for name in (n.input[0], n.output[0])], feeds)
    _insert(model, {node.output[0] for node in chosen}, scales, weights)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(deterministic=True))


def convolution_weights(path: Path) -> list[str]:
    """Return the names of the weights of every convolution of an ONNX file, in order."""
    return [node.input[1] for node in onnx.load(path).graph.node if node.op_type == "Conv"]


def _scales(model: onnx.ModelProto, names: Sequence[str], feeds: Feeds) -> dict[str, float]:
    """Return the scale of each named tensor over all runs."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    wanted = [name for name in dict.fromkeys(names) if name not in outputs]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = onnxruntime.InferenceSession(
        observed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(0)
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in dict.fromkeys(names)}
    for feed in feeds:
        for name, value in zip(samples, session.run(list(samples), dict(feed)), strict=True):
            magnitudes = np.abs(value).ravel()
            drawn = random.choice(magnitudes, min(_KEPT, magnitudes.size), replace=False)
            samples[name].append(np.append(drawn, magnitudes.max()))
    return {name: best_scale(np.concatenate(parts)) for name, parts in samples.items()}


def best_scale(magnitudes: NDArray[np.floating]) -> float:
    """Return the scale at which rounding to -127..127 has the smallest mean squared error.

    Args:
        magnitudes: Absolute values `[N]`, N > 0.
    """
    largest = float(magnitudes.max())
    if largest == 0:
        return 1.0
    scales = _CLIPS * largest / LEVELS
    errors = [
        np.mean((np.minimum(np.rint(magnitudes / s), LEVELS) * s - magnitudes) ** 2) for s in scales
    ]
    return float(scales[int(np.argmin(errors))])


def _bias_after(graph: onnx.GraphProto, conv: onnx.NodeProto) -> None:
    """Add the bias of `conv` (zeros if none) in a separate operation, if it has several readers.

    ONNX Runtime copies the rounding for each reader of a rounded value, and then does not recognise
    an integer convolution before them (measured). With the addition between, there is one reader.
    """
    output = conv.output[0]
    readers = sum(list(node.input).count(output) for node in graph.node)
    if readers < 2:
        return
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # Untrained networks have biases of zero, which the exporter omits.
    none = np.zeros(len(tensors[conv.input[1]]), np.float32)
    bias = tensors[conv.input[2]] if len(conv.input) > 2 else none
    planes = f"{conv.input[1]}_bias_planes"
    graph.initializer.append(numpy_helper.from_array(bias[:, None, None], planes))
    conv.output[0] = f"{output}_without_bias"
    addition = helper.make_node("Add", [conv.output[0], planes], [output], f"{conv.name}_bias")
    del conv.input[2:]
    graph.node.insert(list(graph.node).index(conv) + 1, addition)


def _insert(
    model: onnx.ModelProto,
    chosen: set[str],
    scales: Mapping[str, float],
    weights: Mapping[str, TensorProto],
) -> None:
    """Insert quantisers around the convolutions with these outputs."""
    graph = model.graph
    pairs = _Pairs(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Conv" or node.output[0] not in chosen:
            nodes.append(node)
            continue
        source, weight, output = node.input[0], node.input[1], node.output[0]
        node.input[0], before = pairs.activation(source, scales[source])
        node.input[1], of_weight = pairs.weight(weight, numpy_helper.to_array(weights[weight]))
        # The convolution gets a new output name; readers of the old one read rounded values.
        node.output[0] = f"{output}_float"
        _, after = pairs.activation(node.output[0], scales[output], output)
        nodes += [*before, *of_weight, node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove constants that no operation reads."""
    used = {name for node in graph.node for name in node.input}
    stay = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(stay)


class _Pairs:
    """A factory of pairs of QuantizeLinear and DequantizeLinear in a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._readers: dict[str, int] = {}

    def activation(
        self, source: str, scale: float, result: str | None = None
    ) -> tuple[str, list[onnx.NodeProto]]:
        """Return the name of the rounded `source` (`result` if given), and the nodes for it.

        Readers of one tensor get scales that differ by a rounding step. ONNX Runtime would merge
        equal ones into one quantiser with several readers and keep these as int8, for which it has
        no fast convolution on x86 (measured: five times slower).
        """
        index = self._readers.get(source, 0)
        self._readers[source] = index + 1
        if result is not None:
            # Readers of the result round it again with this scale, so it counts as a reader.
            self._readers[result] = 1
        stepped = np.float32(scale)
        for _ in range(index):
            stepped = np.nextafter(stepped, np.float32(np.inf))
        base = f"{source}_{index}"
        names = [self._constant(f"{base}_scale", stepped), self._zero(f"{base}_zero", ())]
        whole, rounded = f"{base}_int8", result or f"{base}_rounded"
        return rounded, [
            helper.make_node("QuantizeLinear", [source, *names], [whole], f"{base}_quantize"),
            helper.make_node("DequantizeLinear", [whole, *names], [rounded], f"{base}_dequantize"),
        ]

    def weight(self, name: str, value: NDArray[np.float32]) -> tuple[str, list[onnx.NodeProto]]:
        """Return the name of the rounded weight, stored in 8 bits, and the node for it."""
        largest = np.abs(value).reshape(len(value), -1).max(axis=1)
        scale = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
        whole = np.rint(value / scale[:, None, None, None]).astype(np.int8)
        inputs = [
            self._constant(f"{name}_int8", whole),
            self._constant(f"{name}_scale", scale),
            self._zero(f"{name}_zero", scale.shape),
        ]
        rounded = f"{name}_rounded"
        node = helper.make_node("DequantizeLinear", inputs, [rounded], f"{name}_dequantize", axis=0)
        return rounded, [node]

    def _constant(self, name: str, value: Any) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _zero(self, name: str, shape: tuple[int, ...]) -> str:
        return self._constant(name, np.zeros(shape, np.int8))
