"""The three graphs and their contracts, from torch modules to ONNX files.

| graph | inputs | outputs |
| --- | --- | --- |
| `predictor` | `lr` | `code` |
| `sftmd` | `lr`, `code` | `sr`, and with uint8 frames `frame` |
| `corrector` | `sr`, `code` | `next_code` |

With io "uint8", `lr` and `frame` are RGB frames `[N,H,W,3]` uint8 and the graphs contain all
conversions; `sr` is `[N,3,sH,sW]` in the graph's precision, for the corrector only. With io
"float", `lr` and `sr` are `[N,3,H,W]` float32 in [0,1]. Codes are always `[N,code_size]` float32.
N, H and W are dynamic.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from ikc_deploy.bundle.manifest import FrameIO, Precision
from ikc_deploy.errors import ExportError
from ikc_deploy.export.precision import body_dtype, to_half
from ikc_deploy.export.rewrites import (
    deployable_corrector,
    deployable_predictor,
    deployable_sftmd,
)
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.loop_networks import IkcNetworks

OPSET: Final = 18
"""ONNX operator set: the oldest that has every operation, for the most inference engines."""

_EXAMPLE: Final = (2, 24, 32)
"""Batch, height and width for tracing: small, because float16 convolutions are slow on a CPU, and
not 0 or 1, which torch.export would treat as constants."""


class PredictorGraph(nn.Module):
    """The predictor graph: `lr` to `code`.

    Args:
        body: Predictor in the precision of its convolutions.
        io: Type of the frames.
    """

    def __init__(self, body: nn.Module, io: FrameIO) -> None:
        super().__init__()
        self.body, self.io = body, io

    def forward(self, lr: Tensor) -> Tensor:
        """Return `code` from `lr`, as in the contract of the graph."""
        code: Tensor = self.body(planes(lr, self.io).to(_conv_dtype(self.body)))
        return code


class SftmdGraph(nn.Module):
    """The SFTMD graph: `lr` and `code` to `sr` (and `frame`).

    Args:
        body: SR network in the precision of its convolutions.
        io: Type of the frames.
    """

    def __init__(self, body: nn.Module, io: FrameIO) -> None:
        super().__init__()
        self.body, self.io = body, io

    def forward(self, lr: Tensor, code: Tensor) -> tuple[Tensor, ...]:
        """Return (`sr`,) or (`sr`, `frame`), as in the contract of the graph."""
        sr = self.body(planes(lr, self.io), code).clamp(0.0, 1.0)
        if self.io == "float":
            return (sr,)
        return sr.to(_conv_dtype(self.body)), frames(sr)


class CorrectorGraph(nn.Module):
    """The corrector graph: `sr` and `code` to `next_code`.

    Args:
        body: Corrector in the precision of its convolutions.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, sr: Tensor, code: Tensor) -> Tensor:
        """Return `next_code` from `sr` and `code`, as in the contract of the graph."""
        next_code: Tensor = self.body(sr.to(_conv_dtype(self.body)), code)
        return next_code


def planes(lr: Tensor, io: FrameIO) -> Tensor:
    """Return `[N,3,H,W]` float32 in [0,1] of LR frames of the contract.

    TensorRT accepts uint8 only at a cast, so the cast precedes the transpose.
    """
    if io == "float":
        return lr
    return lr.to(torch.float32).permute(0, 3, 1, 2) * (1 / 255)


def frames(sr: Tensor) -> Tensor:
    """Return `[N,H,W,3]` uint8 of `[N,3,H,W]` in [0,1], rounded; the cast is last, for TensorRT."""
    return (sr * 255).round().permute(0, 2, 3, 1).to(torch.uint8)


def graph_modules(networks: IkcNetworks, precision: Precision, io: FrameIO) -> dict[str, nn.Module]:
    """Return the modules to export: rewritten, in this precision, with the graphs' contracts.

    Args:
        networks: Networks on the CPU; they stay unchanged.
        precision: "fp16" for float16 convolutions, others for float32.
        io: Type of the frames.

    Returns:
        Copies by graph name, in evaluation mode.
    """

    def prepared(module: nn.Module) -> nn.Module:
        copied = deepcopy(module).eval()
        return to_half(copied) if precision == "fp16" else copied

    return {
        "predictor": PredictorGraph(prepared(deployable_predictor(networks.predictor)), io),
        "sftmd": SftmdGraph(prepared(deployable_sftmd(networks.sftmd)), io),
        "corrector": CorrectorGraph(prepared(deployable_corrector(networks.corrector))),
    }


def export_graphs(
    networks: IkcNetworks, folder: Path, precision: Precision, io: FrameIO
) -> dict[str, Path]:
    """Write `predictor.onnx`, `sftmd.onnx` and `corrector.onnx`.

    Args:
        networks: Networks on the CPU; they stay unchanged.
        folder: Existing folder.
        precision: "fp16" for float16 convolutions, others for float32.
        io: Type of the frames.

    Returns:
        The paths by graph name.

    Raises:
        ExportError: The exporter returned nothing.
    """
    scale, code_size = networks.architecture.scale, networks.architecture.code_size
    batch, height, width = _EXAMPLE
    if io == "uint8":
        lr = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
        lr_axes = {0: "batch", 1: "height", 2: "width"}
    else:
        lr = torch.zeros(batch, 3, height, width)
        lr_axes = {0: "batch", 2: "height", 3: "width"}
    code = torch.zeros(batch, code_size)
    sr_dtype = body_dtype(precision) if io == "uint8" else torch.float32
    sr = torch.zeros(batch, 3, scale * height, scale * width, dtype=sr_dtype)

    modules = graph_modules(networks, precision, io)
    sr_names = ["sr", "frame"] if io == "uint8" else ["sr"]
    code_axes = {0: "batch"}
    sr_axes = {0: "batch", 2: "sr_height", 3: "sr_width"}
    jobs: dict[str, tuple[dict[str, Tensor], dict[str, dict[int, str]], list[str]]] = {
        "predictor": ({"lr": lr}, {"lr": lr_axes}, ["code"]),
        "sftmd": ({"lr": lr, "code": code}, {"lr": lr_axes, "code": code_axes}, sr_names),
        "corrector": ({"sr": sr, "code": code}, {"sr": sr_axes, "code": code_axes}, ["next_code"]),
    }
    paths = {}
    for name, (inputs, axes, outputs) in jobs.items():
        paths[name] = folder / f"{name}.onnx"
        export_module(modules[name], inputs, axes, outputs, paths[name])
    return paths


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
    dims = {label: torch.export.Dim(label) for sizes in axes.values() for label in sizes.values()}
    shapes = {name: {axis: dims[label] for axis, label in axes[name].items()} for name in inputs}
    with _quiet():
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
    _strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(deterministic=True))


def _strip_traces(model: Any) -> None:
    """Remove stack traces: they hold local paths and make equal exports differ."""
    del model.metadata_props[:]
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del item.metadata_props[:]
    for item in graph.initializer:
        del item.metadata_props[:]
    model.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about its own internals; failures still raise."""
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


def _conv_dtype(module: nn.Module) -> torch.dtype:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            return part.weight.dtype
    raise ExportError("a network without convolutions cannot be exported")
