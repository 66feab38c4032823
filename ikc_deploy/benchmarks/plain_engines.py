"""Inference engines that people run an ONNX file with, each with the settings of its own guide."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.loops import CODE, LR
from ikc_deploy.runtime.backends.openvino_devices import find_device, open_core
from ikc_deploy.runtime.backends.openvino_models import WITHOUT_SNIPPETS
from ikc_deploy.runtime.backends.signal_stack import kept_signal_stack

PlainGraph = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
"""A graph that is ready to run: inputs by name to its only output, on the host."""


class PlainEngine(Protocol):
    """A library that runs ONNX files."""

    @property
    def library(self) -> str:
        """Name of the library."""

    @property
    def precision(self) -> str:
        """Precision of the convolutions."""

    def open(self, path: Path, shapes: Mapping[str, tuple[int, ...]], threads: int) -> PlainGraph:
        """Read a graph.

        Args:
            path: ONNX file with one output.
            shapes: Shapes of its inputs, by name, in the order of its inputs.
            threads: Number of CPU cores; 0 for all.

        Raises:
            IkcError: The library is missing or does not run the graph; the message has the reason.
        """


@dataclass(frozen=True)
class OnnxRuntimeEngine:
    """ONNX Runtime's CPU provider with its default settings."""

    library = "onnxruntime"
    precision = "fp32"

    def open(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, ...]],  # noqa: ARG002
        threads: int,
    ) -> PlainGraph:
        """Read a graph (see `PlainEngine.open`)."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

        def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            output: NDArray[Any] = session.run(None, dict(inputs))[0]
            return output

        return run


@dataclass(frozen=True)
class OpenVinoEngine:
    """OpenVINO on the CPU for low latency, with fixed shapes and a precision that is always set."""

    precision: Literal["fp32", "bf16"]
    """Precision of the convolutions."""
    library = "openvino"

    def open(self, path: Path, shapes: Mapping[str, tuple[int, ...]], threads: int) -> PlainGraph:
        """Read a graph (see `PlainEngine.open`); `BackendError` if the CPU lacks the precision."""
        core = open_core()
        arithmetic: Literal["f32", "bf16"] = "f32" if self.precision == "fp32" else "bf16"
        if not find_device(core, "CPU").computes(arithmetic):
            raise BackendError(f"this CPU does not compute {arithmetic} natively")
        model = core.read_model(str(path))
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        config = {"INFERENCE_PRECISION_HINT": arithmetic, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        if set(shapes) != {LR, CODE}:
            config |= WITHOUT_SNIPPETS
        with kept_signal_stack():
            request = core.compile_model(model, "CPU", config).create_infer_request()

        def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            output: NDArray[Any] = request.infer(dict(inputs))[0]
            return output

        return run


@dataclass(frozen=True)
class NcnnEngine:
    """ncnn on the CPU in float32; pnnx converts the graph for its shapes."""

    library = "ncnn"
    precision = "fp32"

    def open(self, path: Path, shapes: Mapping[str, tuple[int, ...]], threads: int) -> PlainGraph:
        """Read a graph (see `PlainEngine.open`).

        Raises `InputError` for batches, `BackendError` if ncnn or pnnx is missing or refuses it.
        """
        if any(shape[0] != 1 for shape in shapes.values()):
            raise InputError("ncnn has no batches; measure it with --batch 1")
        try:
            import ncnn
        except ModuleNotFoundError as error:
            raise BackendError("ncnn is not installed; run: pip install ncnn pnnx") from error
        net = ncnn.Net()
        net.opt.use_vulkan_compute = False
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{name}", False)
        if threads:
            net.opt.num_threads = threads
        with tempfile.TemporaryDirectory() as folder:
            converted = _converted(path, shapes, Path(folder))
            if net.load_param(f"{converted}.param") or net.load_model(f"{converted}.bin"):
                raise BackendError(f"ncnn does not read '{path.name}' as pnnx converted it")

        def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            extractor = net.create_extractor()
            # ncnn reads the arrays in place, so they must live until the result is there.
            arrays = [np.ascontiguousarray(value[0], np.float32) for value in inputs.values()]
            for number, array in enumerate(arrays):
                extractor.input(f"in{number}", ncnn.Mat(array))
            failed, output = extractor.extract("out0")
            if failed:
                raise BackendError(f"ncnn cannot run '{path.name}'")
            return np.array(output)[None]

        return run


def _converted(path: Path, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> Path:
    """Convert an ONNX file by pnnx; return the path of ncnn's files without their suffix."""
    # pnnx writes its files beside the graph.
    graph = folder / "graph.onnx"
    copyfile(path, graph)
    sizes = ",".join(f"[{','.join(map(str, shape))}]" for shape in shapes.values())
    pnnx = Path(sys.executable).with_name("pnnx")
    command = [str(pnnx), str(graph), f"inputshape={sizes}", "fp16=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise BackendError("ncnn's converter is not installed; run: pip install pnnx") from error
    converted = folder / "graph.ncnn"
    if done.returncode or not Path(f"{converted}.param").is_file():
        raise BackendError(f"pnnx does not convert '{path.name}': {done.stderr[-300:].strip()}")
    return converted
