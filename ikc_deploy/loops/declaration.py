"""The declaration of a loop that alternates between an SR image and a kernel code.

    h0 = start;  sr0 = image(h0);  for i in 1..t:  hi = update(sr(i-1), ...);  sri = image(hi)

A `Loop` declares what differs between methods: the graphs, their inputs, and where the loop starts.
Sessions, export, parity gate, engines, serving and benchmarks read it; none of them knows a method.
The module needs the standard library only, because it is copied to servers.
"""

from __future__ import annotations

from dataclasses import dataclass

LR = "lr"
"""Name of a graph's input for LR frames."""
SR = "sr"
"""Name of the SR images that the loop passes from its image graph to its update graph."""
CODE = "code"
"""Name of a kernel code: an input, or the output of the start graph."""
NEXT_CODE = "next_code"
"""Name of the output of the update graph."""
FRAME = "frame"
"""Name of the SR frames for the caller, where they differ from `SR`."""

GraphStep = tuple[str, int]
"""A graph and the step of the loop at which it runs; the update graph of step i computes code i."""


@dataclass(frozen=True)
class LoopGraph:
    """One graph of a loop."""

    name: str
    """Name of the graph, of its file and of its network."""
    inputs: tuple[str, ...]
    """Names of its inputs, in order: `LR`, `SR`, `CODE`."""


@dataclass(frozen=True)
class Loop:
    """The graphs of a method, their inputs, and the start of its loop.

    Raises:
        ValueError: Two graphs share a name, or a graph reads what does not exist at its place.
    """

    name: str
    """Name in manifests."""
    start: LoopGraph | None
    """Graph that computes the first code from the LR frames; None for a loop that starts at the
    code of the delta kernel (no blur)."""
    image: LoopGraph
    """Graph that computes the SR images from the LR frames and a code."""
    update: LoopGraph
    """Graph that computes the next code from the SR images."""
    clamped: bool
    """Whether the update graph sees images that are clamped to [0,1], as the caller does."""
    iters: int
    """Number of updates in the publication: the default where none was measured."""

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
        """Return the graph of this name.

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

        Raises:
            KeyError: The loop has no such graph.
        """
        if self.graph(name) is self.image:
            return (SR, FRAME) if io == "uint8" or not self.clamped else (SR,)
        return (CODE,) if self.graph(name) is self.start else (NEXT_CODE,)

    def blind(self, iters: int) -> tuple[GraphStep, ...]:
        """Return the steps of the whole loop with `iters` updates."""
        updates = [
            step
            for i in range(1, iters + 1)
            for step in ((self.update.name, i), (self.image.name, i))
        ]
        return (*self.predict(), (self.image.name, 0), *updates)

    def predict(self) -> tuple[GraphStep, ...]:
        """Return the steps that compute the first code; none where it is constant."""
        return () if self.start is None else ((self.start.name, 0),)

    def correct(self, updates: int) -> tuple[GraphStep, ...]:
        """Return the steps from code 0 to code `updates`, without the image of the last one."""
        return tuple(
            step
            for i in range(updates)
            for step in ((self.image.name, i), (self.update.name, i + 1))
        )

    def passes(self, iters: int) -> dict[str, int]:
        """Return how often each graph runs in the whole loop with `iters` updates."""
        names = [name for name, _ in self.blind(iters)]
        return {name: names.count(name) for name in self.graphs}
