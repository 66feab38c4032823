"""`Loop`: declares a method that alternates between an SR image and a kernel code.

    h0 = start;  sr0 = image(h0);  for i in 1..t:  hi = update(sr(i-1), ...);  sri = image(hi)

A `Loop` declares what differs between methods: the graphs, their inputs, and the initial code.
Sessions, export, parity gate, engines, serving and benchmarks are driven by it, and contain no code
for a specific method. This module imports only the standard library, because it is copied to
servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LR = "lr"
"""Name of a graph's input for LR frames."""
SR = "sr"
"""Name of the SR images: an output of the image graph and an input of the update graph."""
CODE = "code"
"""Name of a kernel code: an input, or the output of the start graph."""
NEXT_CODE = "next_code"
"""Name of the output of the update graph."""
FRAME = "frame"
"""Name of the SR frames for the caller, if they differ from `SR`."""

RunGraph = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""A function that runs the graph of a name on inputs by name, and returns the outputs by name."""

GraphStep = tuple[str, int]
"""Name of a graph, and the step at which it runs; the update graph of step i computes code i."""


@dataclass(frozen=True)
class LoopGraph:
    """One graph of a loop."""

    name: str
    """Name of the graph, its file and its network."""
    inputs: tuple[str, ...]
    """Names of the inputs, in order: `LR`, `SR`, `CODE`."""


@dataclass(frozen=True)
class Loop:
    """The graphs of a method, their inputs, and the start of its loop.

    Raises:
        ValueError: Two graphs share a name, or a graph has an input that does not exist when it
            runs.
    """

    name: str
    """Name in manifests."""
    start: LoopGraph | None
    """Graph that computes the initial code from the LR frames; None for a loop that starts with the
    code of the delta kernel (no blur)."""
    image: LoopGraph
    """Graph that computes the SR images from the LR frames and a code."""
    update: LoopGraph
    """Graph that computes the next code from the SR images."""
    clamped: bool
    """Whether the images for the update graph are clamped to [0,1]."""
    iters: int
    """Number of updates in the paper; the default for weights without a recommended number."""

    def __post_init__(self) -> None:
        """Require distinct names, and inputs that exist when a graph runs."""
        if len(set(self.graphs)) != len(self.graphs):
            raise ValueError(f"graphs of the loop '{self.name}' share a name: {self.graphs}")
        allowed = [(self.image, {LR, CODE}), (self.update, {LR, SR, CODE})]
        if self.start is not None:
            allowed.append((self.start, {LR}))
        for graph, known in allowed:
            if not set(graph.inputs) <= known:
                raise ValueError(
                    f"'{graph.name}' of the loop '{self.name}' reads {graph.inputs}, but only "
                    f"{sorted(known)} exist at its place"
                )

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs, in the order of their first use."""
        first = () if self.start is None else (self.start.name,)
        return (*first, self.image.name, self.update.name)

    def graph(self, name: str) -> LoopGraph:
        """Return a graph.

        Args:
            name: Name of the graph.

        Returns:
            The graph.

        Raises:
            KeyError: The loop has no such graph.
        """
        for graph in (self.start, self.image, self.update):
            if graph is not None and graph.name == name:
                return graph
        raise KeyError(name)

    def outputs(self, name: str, io: str) -> tuple[str, ...]:
        """Return the names of the outputs of a graph.

        Args:
            name: Name of the graph.
            io: "uint8" or "float", the type of the frames.

        Returns:
            The names, `SR` first.

        Raises:
            KeyError: The loop has no such graph.
        """
        if self.graph(name) is self.image:
            return (SR, FRAME) if io == "uint8" or not self.clamped else (SR,)
        return (CODE,) if self.graph(name) is self.start else (NEXT_CODE,)

    def blind(self, iters: int) -> tuple[GraphStep, ...]:
        """Return the steps of the whole loop.

        Args:
            iters: Number of updates.

        Returns:
            The graphs to run, in order.
        """
        updates = [
            step
            for i in range(1, iters + 1)
            for step in ((self.update.name, i), (self.image.name, i))
        ]
        return (*self.predict(), (self.image.name, 0), *updates)

    def predict(self) -> tuple[GraphStep, ...]:
        """Return the steps that compute the initial code; empty if it is constant."""
        return () if self.start is None else ((self.start.name, 0),)

    def correct(self, updates: int) -> tuple[GraphStep, ...]:
        """Return the steps from code 0 to a later one, without the image of the last code.

        Args:
            updates: Number of updates.

        Returns:
            The graphs to run, in order.
        """
        return tuple(step for i in range(1, updates + 1) for step in self.correction(i))

    def correction(self, step: int) -> tuple[GraphStep, ...]:
        """Return the steps from one code to the next.

        Args:
            step: Index of the update, from 1.

        Returns:
            The image of the previous code, and the update.
        """
        return ((self.image.name, step - 1), (self.update.name, step))

    def walk(
        self, run: RunGraph, lr: Any, code: Any, iters: int
    ) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Run the whole loop step by step, with tensors of any library.

        Args:
            run: Runs a graph.
            lr: LR frames.
            code: Initial code; None for that of the start graph.
            iters: Number of updates.

        Yields:
            The code of each step, and the outputs of the image graph. The update runs when the next
            step is requested.

        Raises:
            ValueError: `code` is None, but the loop has no start graph.
        """
        if code is None:
            if self.start is None:
                raise ValueError(f"the loop '{self.name}' starts at a constant code; give it")
            code = run(self.start.name, {LR: lr})[CODE]
        values = {LR: lr, CODE: code}
        for step in range(iters + 1):
            images = run(self.image.name, {name: values[name] for name in self.image.inputs})
            yield values[CODE], images
            if step < iters:
                values[SR] = images[SR]
                inputs = {name: values[name] for name in self.update.inputs}
                values[CODE] = run(self.update.name, inputs)[NEXT_CODE]

    def passes(self, iters: int) -> dict[str, int]:
        """Return the number of runs of each graph in the whole loop.

        Args:
            iters: Number of updates.

        Returns:
            The numbers by name of the graph.
        """
        names = [name for name, _ in self.blind(iters)]
        return {name: names.count(name) for name in self.graphs}
