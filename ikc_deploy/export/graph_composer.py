"""`GraphComposer`: combines several ONNX graphs, sharing equal weights and operations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ikc_deploy.errors import ExportError


class GraphComposer:
    """A graph under construction, in which equal constants and operations exist only once.

    Args:
        sizes: Symbolic sizes of the added graphs, as expressions in the sizes of the new graph.
    """

    def __init__(self, sizes: Mapping[str, str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shapes: dict[str, onnx.ValueInfoProto] = {}
        """Types and shapes of values, by name."""
        self._sizes = sizes
        self._constants: dict[tuple[int, tuple[int, ...], bytes], str] = {}
        self._done: dict[bytes, Sequence[str]] = {}

    def add(self, label: str, model: onnx.ModelProto, **inputs: str) -> dict[str, str]:
        """Add a pass of a network.

        Args:
            label: Prefix of the names of new nodes and values.
            model: The network's graph; it is not modified.
            inputs: Names of values in this graph by the names of the network's inputs.

        Returns:
            Names of values in this graph by the names of the network's outputs.

        Raises:
            ExportError: The network's graph contains functions or graphs.
        """
        names: dict[str, str] = {"": "", **inputs}
        for tensor in model.graph.initializer:
            names[tensor.name] = self._shared_initializer(tensor)
        if model.functions:
            raise ExportError(f"the graph of {label} contains functions, which are not composed")
        for node in model.graph.node:
            if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                raise ExportError(f"'{node.name}' in {label} contains a graph")
            new = onnx.NodeProto()
            new.CopyFrom(node)
            del new.input[:], new.output[:]
            new.input.extend(names[name] for name in node.input)
            outputs = [name and f"{label}/{name}" for name in node.output]
            names |= zip(
                node.output,
                self._add_unless_equal(new, f"{label}/{node.name}", outputs),
                strict=True,
            )
        for value in (*model.graph.value_info, *model.graph.output):
            self._record_shape(value, names[value.name])
        return {value.name: names[value.name] for value in model.graph.output}

    def constant(self, values: NDArray[Any]) -> str:
        """Add an initializer; return its name."""
        return self._shared_initializer(numpy_helper.from_array(values, "code"))

    def node(self, operator: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        node = helper.make_node(operator, list(inputs), [], **attributes)
        return self._add_unless_equal(node, name, [name])[0]

    def cast(self, value: str, kind: int) -> str:
        """Add a cast of `value` to a tensor type; return the name of the result."""
        return self.node("Cast", f"{value}_as_{kind}", [value], to=kind)

    def rename(self, value: str, name: str) -> None:
        """Rename the output of a node."""
        for node in self.nodes:
            for side in (node.input, node.output):
                for index, found in enumerate(side):
                    if found == value:
                        side[index] = name

    def _record_shape(self, value: onnx.ValueInfoProto, name: str) -> None:
        """Record the shape of a value.

        ONNX Runtime fuses more operations if it knows that shapes are equal; otherwise images would
        differ from those of the networks in the last bit.
        """
        described = self.shapes.setdefault(name, onnx.ValueInfoProto())
        described.CopyFrom(value)
        described.name = name
        for size in described.type.tensor_type.shape.dim:
            for symbol, meaning in self._sizes.items():
                whole = size.dim_param == symbol
                text = meaning if whole else f"({meaning})"
                size.dim_param = re.sub(rf"\b{symbol}\b", text, size.dim_param)

    def _shared_initializer(self, tensor: onnx.TensorProto) -> str:
        content = numpy_helper.to_array(tensor).tobytes()
        key = tensor.data_type, tuple(tensor.dims), content
        if key not in self._constants:
            self._constants[key] = f"weight_{len(self._constants)}/{tensor.name}"
            self.initializers.append(onnx.TensorProto())
            self.initializers[-1].CopyFrom(tensor)
            self.initializers[-1].name = self._constants[key]
        return self._constants[key]

    def _add_unless_equal(
        self, node: onnx.NodeProto, name: str, outputs: Sequence[str]
    ) -> Sequence[str]:
        """Add a node unless an equal one exists; return the names of its outputs."""
        node.name = ""
        key = node.SerializeToString(deterministic=True)
        if key not in self._done:
            node.name = name
            node.output.extend(outputs)
            self.nodes.append(node)
            self._done[key] = outputs
        return self._done[key]
