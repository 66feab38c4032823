"""Export of a loop's graphs from torch to ONNX, and the contracts of these graphs.

| graph | inputs | outputs |
| --- | --- | --- |
| start, if the loop has one | `lr` | `code` |
| image | `lr`, `code` | `sr`; also `frame` if frames are uint8 or `sr` is not clamped |
| update | as declared by the loop: `lr`, `sr`, `code` | `next_code` |

Names and inputs are declared in `ikc_deploy.loops`. With io "uint8", `lr` and `frame` are RGB
frames `[N,H,W,3]` uint8 and the graphs contain all conversions; `sr` is `[N,3,sH,sW]` in the
graph's precision, as input of the update graph. With io "float", all three are `[N,3,H,W]` float32.
`lr` and `frame` are in [0,1]; `sr` is, too, if the loop clamps it. Codes are `[N,code_size]`
float32. N, H and W are dynamic.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from ikc_deploy.bundle.manifest import FrameIO, Precision
from ikc_deploy.errors import ExportError
from ikc_deploy.export.deployable import deployable
from ikc_deploy.export.precision import body_dtype, to_half
from ikc_deploy.files import write_atomically
from ikc_deploy.loops import CODE, LR, SR
from ikc_deploy.networks.loop_networks import LoopNetworks

OPSET: Final = 18
"""ONNX operator set: the oldest one that suffices, to support most inference engines."""

EXAMPLE_SHAPE: Final = (2, 24, 32)
"""Batch, height and width for tracing. Small, because float16 convolutions are slow on a CPU; not 0
or 1, which torch.export treats as constants."""


class StartGraph(nn.Module):
    """The start graph: `lr` to `code`.

    Args:
        body: Network in the precision of its convolutions.
        io: Type of the frames.
    """

    def __init__(self, body: nn.Module, io: FrameIO) -> None:
        super().__init__()
        self.body, self.io = body, io

    def forward(self, lr: Tensor) -> Tensor:
        """Return `code`; see the contract of the graph."""
        code: Tensor = self.body(planes(lr, self.io).to(_conv_dtype(self.body)))
        return code


class ImageGraph(nn.Module):
    """The image graph: `lr` and `code` to `sr` (and `frame`).

    Args:
        body: SR network in the precision of its convolutions.
        io: Type of the frames.
        clamped: Whether `sr` is clamped to [0,1]; `frame` always is.
    """

    def __init__(self, body: nn.Module, io: FrameIO, clamped: bool) -> None:
        super().__init__()
        self.body, self.io, self.clamped = body, io, clamped

    def forward(self, lr: Tensor, code: Tensor) -> tuple[Tensor, ...]:
        """Return (`sr`,) or (`sr`, `frame`); see the contract of the graph."""
        natural = self.body(planes(lr, self.io), code)
        image = natural.clamp(0.0, 1.0)
        sr = image if self.clamped else natural
        if self.io == "float":
            return (sr,) if self.clamped else (sr, image)
        return sr.to(_conv_dtype(self.body)), frames(image)


class UpdateGraph(nn.Module):
    """The update graph: the inputs that the loop declares to `next_code`.

    Args:
        body: Network in the precision of its convolutions.
        io: Type of the frames.
        names: Names of the inputs, in the order of the network's arguments.
    """

    def __init__(self, body: nn.Module, io: FrameIO, names: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.io, self.names = body, io, names

    def forward(self, sr: Tensor, lr: Tensor | None = None, code: Tensor | None = None) -> Tensor:
        """Return `next_code`; see the contract of the graph."""
        given = {SR: sr, LR: lr, CODE: code}
        next_code: Tensor = self.body(*(self._prepared(name, given[name]) for name in self.names))
        return next_code

    def _prepared(self, name: str, tensor: Tensor | None) -> Tensor:
        if tensor is None:
            raise ExportError(f"the update graph reads '{name}', which is missing")
        if name == CODE:
            return tensor
        image = planes(tensor, self.io) if name == LR else tensor
        return image.to(_conv_dtype(self.body))


def planes(lr: Tensor, io: FrameIO) -> Tensor:
    """Convert LR frames of the contract to `[N,3,H,W]` float32 in [0,1].

    TensorRT supports uint8 only as the input of a cast, so the cast precedes the transpose.
    """
    if io == "float":
        return lr
    return lr.to(torch.float32).permute(0, 3, 1, 2) * (1 / 255)


def frames(sr: Tensor) -> Tensor:
    """Convert `[N,3,H,W]` in [0,1] to `[N,H,W,3]` uint8; the cast must be last for TensorRT."""
    return (sr * 255).round().permute(0, 2, 3, 1).to(torch.uint8)


def graph_modules(
    networks: LoopNetworks, precision: Precision, io: FrameIO, *, copied: bool = True
) -> dict[str, nn.Module]:
    """Return the modules to export: rewritten, in the given precision, with the graphs' contracts.

    Args:
        networks: Networks on the CPU; they are not modified.
        precision: "fp16" for float16 convolutions, other values for float32.
        io: Type of the frames.
        copied: Whether the modules are copies; otherwise they may share weights with `networks`.

    Returns:
        The modules by graph name; copies are in evaluation mode.
    """

    def prepared(module: nn.Module) -> nn.Module:
        if not copied:
            return module
        own = deepcopy(module).eval()
        return to_half(own) if precision == "fp16" else own

    loop = networks.loop
    bodies = {name: prepared(body) for name, body in deployable(networks).items()}
    modules: dict[str, nn.Module] = {}
    if loop.start is not None:
        modules[loop.start.name] = StartGraph(bodies[loop.start.name], io)
    modules[loop.image.name] = ImageGraph(bodies[loop.image.name], io, loop.clamped)
    modules[loop.update.name] = UpdateGraph(bodies[loop.update.name], io, loop.update.inputs)
    return modules


def export_graphs(
    networks: LoopNetworks, folder: Path, precision: Precision, io: FrameIO
) -> dict[str, Path]:
    """Write `GRAPH.onnx` for each graph of the loop.

    Args:
        networks: Networks on the CPU; they are not modified.
        folder: Existing folder.
        precision: "fp16" for float16 convolutions, other values for float32.
        io: Type of the frames.

    Returns:
        The paths by graph name.

    Raises:
        ExportError: The exporter returned nothing.
    """
    scale, code_size = networks.architecture.scale, networks.architecture.code_size
    batch, height, width = EXAMPLE_SHAPE
    if io == "uint8":
        lr = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    else:
        lr = torch.zeros(batch, 3, height, width)
    code = torch.zeros(batch, code_size)
    sr_dtype = body_dtype(precision) if io == "uint8" else torch.float32
    sr = torch.zeros(batch, 3, scale * height, scale * width, dtype=sr_dtype)

    modules = graph_modules(networks, precision, io)
    tensors = {LR: lr, SR: sr, CODE: code}
    paths = {}
    for name in networks.loop.graphs:
        paths[name] = folder / f"{name}.onnx"
        inputs = networks.loop.graph(name).inputs
        axes = input_axes(io, scale, inputs)
        export_module(
            modules[name],
            {each: tensors[each] for each in inputs},
            {each: axes[each] for each in inputs},
            list(networks.loop.outputs(name, io)),
            paths[name],
        )
    return paths


def input_axes(io: FrameIO, scale: int, inputs: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return the names of the dynamic axes of the graphs' inputs, by tensor and axis.

    If a graph has both LR and SR inputs, SR sides are declared as multiples of LR sides.
    """
    height, width = (
        (f"{scale}*height", f"{scale}*width") if LR in inputs else ("sr_height", "sr_width")
    )
    return {
        LR: {0: "batch"} | dict(enumerate(("height", "width"), 1 if io == "uint8" else 2)),
        SR: {0: "batch", 2: height, 3: width},
        CODE: {0: "batch"},
    }


def export_module(
    module: nn.Module,
    inputs: dict[str, Tensor],
    axes: dict[str, dict[int, str]],
    outputs: list[str],
    path: Path,
) -> None:
    """Trace a module and write it as an ONNX graph.

    Args:
        module: Module on the CPU, in evaluation mode.
        inputs: Example inputs by name.
        axes: Names of the dynamic axes of each input, by axis.
        outputs: Names of the outputs.
        path: ONNX file; an existing one is replaced atomically.

    Raises:
        ExportError: The exporter returned nothing.
        onnx.checker.ValidationError: The graph is invalid.
    """
    dims = _dims(label for sizes in axes.values() for label in sizes.values())
    shapes = {name: {axis: dims[label] for axis, label in axes[name].items()} for name in inputs}
    with quiet_exporter(), _without_collections():
        program = torch.onnx.export(
            module,
            args=(),
            kwargs=dict(inputs),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"torch.onnx.export returned nothing for '{path.name}'")
    model = program.model_proto
    strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(deterministic=True))


def _dims(labels: Iterable[str]) -> dict[str, Any]:
    """Return dynamic sizes by label; `4*height` is a multiple of `height`."""
    dims: dict[str, Any] = {}
    for label in labels:
        factor, _, name = label.rpartition("*")
        dim = dims.setdefault(name, torch.export.Dim(name))
        dims[label] = int(factor) * dim if factor else dim
    return dims


def strip_traces(model: Any) -> None:
    """Remove stack traces, which contain local paths and make equal exports differ."""
    del model.metadata_props[:]
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del item.metadata_props[:]
    for item in graph.initializer:
        del item.metadata_props[:]
    model.doc_string = ""


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's warnings about its internals; errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Disable the cyclic garbage collector: tracing creates many objects but little garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _conv_dtype(module: nn.Module) -> torch.dtype:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            return part.weight.dtype
    raise ExportError("a network without convolutions cannot be exported")
