"""Candidates of other inference engines: the networks exported without rewrites.

Inputs and outputs of every call are host arrays, as in an application that only has the ONNX files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ikc_deploy.benchmarks.case import BenchmarkCase, Subject, planes_of
from ikc_deploy.benchmarks.flops import graph_work, loop_total
from ikc_deploy.benchmarks.plain_engines import PlainEngine, PlainGraph
from ikc_deploy.benchmarks.runners import LastImage, StageClock, Timing
from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.files import atomic_folder, restore
from ikc_deploy.locks import locked
from ikc_deploy.loops import CODE, LR, SR
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.networks.weights_loader import load_weights
from ikc_deploy.paths import cache_folder
from ikc_deploy.version import __version__
from ikc_deploy.weights import find_weights


class PlainGraphsRunner(LastImage):
    """A runner of the loop over unrewritten graphs.

    Args:
        subject: What is measured: weights, as a bundle's graphs are rewritten.
        case: Size and number of frames, corrections and threads.
        engine: Library that runs the graphs.

    Raises:
        InputError: The subject is a bundle, or the engine cannot run the case.
        IkcError: The engine is not installed or does not run here.
    """

    def __init__(self, subject: Subject, case: BenchmarkCase, engine: PlainEngine) -> None:
        if subject.weights is None:
            raise InputError(
                "unrewritten graphs are exported from weights; give --weights instead of --bundle"
            )
        self._folder = plain_graphs(subject.weights)
        networks = load_weights(subject.weights).networks
        self._loop, scale = networks.loop, networks.architecture.scale
        self._start = networks.basis.delta_code() if self._loop.start is None else None
        self._shapes: dict[str, tuple[int, ...]] = {
            LR: (case.batch, 3, case.height, case.width),
            CODE: (case.batch, networks.architecture.code_size),
            SR: (case.batch, 3, scale * case.height, scale * case.width),
        }
        self._case = case
        self._graphs: dict[str, PlainGraph] = {
            name: engine.open(self._folder / f"{name}.onnx", self._input_shapes(name), case.threads)
            for name in self._loop.graphs
        }
        self.precision, self.library = engine.precision, engine.library
        self._frames = case.frames()

    def run(self) -> Timing:
        """Run one call on the case's frames and return its times.

        Raises:
            BackendError: The engine returns another shape than the graph.
        """
        clock = StageClock()
        started = time.perf_counter()
        lr = planes_of(self._frames)
        start = None if self._start is None else np.tile(self._start, (len(lr), 1))
        run = partial(self._call, clock)
        for _, images in self._loop.walk(run, lr, start, self._case.iters):
            sr = images[SR]
        image = np.rint(255 * sr).clip(0, 255)
        self._image = image.astype(np.uint8).transpose(0, 2, 3, 1)
        return Timing(1e3 * (time.perf_counter() - started), clock.stages)

    def macs(self) -> int | None:
        """Return the multiply-accumulates of one call, corrections included."""
        counted = {
            name: sum(
                work.macs
                for _, work in graph_work(self._folder / f"{name}.onnx", self._input_shapes(name))
            )
            for name in self._loop.graphs
        }
        return int(loop_total(self._loop, counted, self._case.iters))

    def close(self) -> None:
        """Free the networks."""
        self._graphs.clear()

    def _input_shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        return {each: self._shapes[each] for each in self._loop.graph(name).inputs}

    def _call(self, clock: StageClock, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        output = self._loop.outputs(name, "float")[0]
        value = clock.time(name, self._graphs[name], inputs)
        expected = self._shapes[SR if output == SR else CODE]
        if value.shape != expected:
            raise BackendError(
                f"{self.library} returns {list(value.shape)} as the {output} of {name}, where the "
                f"graph returns {list(expected)}: it converts this graph wrongly"
            )
        return {output: value}


def plain_graphs(weights: str) -> Path:
    """Return the folder of the plain graphs of these weights; export them into the cache if needed.

    Args:
        weights: Spec of the weights.
    """
    source = find_weights(weights)
    folder = cache_folder() / f"{source.name}-{source.sha256[:12]}-{__version__}-plain"
    if folder.is_dir():
        return folder
    with locked(folder):
        restore(folder)
        if not folder.is_dir():
            with atomic_folder(folder) as temporary:
                _export_plain_graphs(load_weights(weights).networks, temporary)
    return folder


def _export_plain_graphs(networks: LoopNetworks, folder: Path) -> None:
    """Write the networks as ONNX graphs without rewrites, one for each graph of the loop.

    Names of inputs are those of the loop; the only output is `code`, `sr` or `next_code`. Images
    are `[N,3,H,W]` float32, batch and size dynamic. Nothing is clamped.
    """
    import torch

    from ikc_deploy.export.graphs import EXAMPLE_SHAPE, export_module, input_axes

    scale = networks.architecture.scale
    batch, height, width = EXAMPLE_SHAPE
    tensors = {
        LR: torch.zeros(batch, 3, height, width),
        SR: torch.zeros(batch, 3, scale * height, scale * width),
        CODE: torch.zeros(batch, networks.architecture.code_size),
    }
    for name, module in networks.modules().items():
        inputs = networks.loop.graph(name).inputs
        axes = input_axes("float", scale, inputs)
        export_module(
            module,
            {each: tensors[each] for each in inputs},
            {each: axes[each] for each in inputs},
            [networks.loop.outputs(name, "float")[0]],
            folder / f"{name}.onnx",
        )
