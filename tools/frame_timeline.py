"""Draw the timeline of one frame in several modes, from traces of calls on the CPU.

    python -m tools.frame_timeline                # writes docs/images/timeline.svg
    python -m tools.frame_timeline --repeats 9    # of more calls, the fastest is drawn

The trace is what the backend was given: copies and networks, with the times at which they began and
ended. What lies between them is Python. ONNX Runtime computes on one core, in the caller's thread;
its CPU time is drawn, so that other work of the machine does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.runtime.backends.base import Binding, BoundGraph, Buffer, Index
from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.upscaler import Upscaler

ROOT: Final = Path(__file__).resolve().parents[1]
ITERS: Final = 2
TILE: Final = 64

COLOURS: Final = {
    "copy": "#c0392b",
    "predictor P": "#8e44ad",
    "SR network F": "#2471a3",
    "corrector C": "#e08e0b",
}
"""Colours of the kinds of work, in the order of the legend."""


@dataclass(frozen=True)
class TracedSpan:
    """Work of the backend."""

    kind: str
    """One of `COLOURS`."""
    start: float
    """Begin in seconds by `time.thread_time`."""
    end: float
    """End."""


@dataclass(frozen=True)
class FrameTrace:
    """The call of one frame."""

    mode: str
    """Mode and number of corrections, for the picture."""
    start: float
    """Begin of the call."""
    end: float
    """End of the call."""
    spans: tuple[TracedSpan, ...]
    """Work of the backend in it, in order."""


class TracedBackend(OnnxRuntimeCpu):
    """ONNX Runtime on the CPU, which notes what it was given."""

    def __init__(self, sessions: Any, names: dict[str, str]) -> None:
        super().__init__(sessions)
        self.spans: list[TracedSpan] = []
        self._names = names

    @classmethod
    def of(cls, bundle: Bundle) -> TracedBackend:
        """Return the backend of a bundle on one core."""
        loop = bundle.loop
        names = {loop.image.name: "SR network F", loop.update.name: "corrector C"}
        if loop.start is not None:
            names[loop.start.name] = "predictor P"
        return cls(OnnxRuntimeCpu.open(bundle, threads=1)._sessions, names)

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy, and note it."""
        with self._noted("copy"):
            super().upload(array, buffer)

    def copy(self, source: Buffer, part: Index, target: Buffer, place: Index) -> None:
        """Copy, and note it."""
        with self._noted("copy"):
            super().copy(source, part, target, place)

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """Copy, and note it."""
        with self._noted("copy"):
            return super().download(buffer)

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Bind graphs that note when they run."""
        graphs = super().bind(bindings)
        return [
            _TracedGraph(graph.enqueue, partial(self._noted, self._names[binding.graph]))
            for graph, binding in zip(graphs, bindings, strict=True)
        ]

    @contextmanager
    def _noted(self, kind: str) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.spans.append(TracedSpan(kind, start, time.thread_time()))


class _TracedGraph:
    def __init__(self, run: Callable[[], None], noted: Callable[[], Any]) -> None:
        self._run, self._noted = run, noted

    def enqueue(self) -> None:
        with self._noted():
            self._run()


def trace(bundle: Bundle, frame: NDArray[np.uint8], repeats: int) -> list[FrameTrace]:
    """Return the fastest of several calls in each mode; the first ones only allocate.

    Args:
        bundle: The bundle.
        frame: `[H,W,3]`.
        repeats: Number of calls in each mode.
    """
    text = f"{ITERS} corrections"
    modes: list[tuple[str, TileSettings, dict[str, Any]]] = [
        (f"full, {text}", TileSettings(), {"estimate": "full"}),
        (f"crops, {text}", TileSettings(), {"estimate": "crops"}),
        ("track, within a scene", TileSettings(), {"estimate": "track"}),
        (f"crops, tiles of {TILE}", TileSettings(TILE), {"estimate": "crops"}),
        ("given blur", TileSettings(), {"sigma": 1.8}),
    ]
    traces = []
    for name, tiles, call in modes:
        backend = TracedBackend.of(bundle)
        with Upscaler(bundle, backend, ITERS, tiles=tiles) as upscaler:
            calls = []
            for _ in range(2 + repeats):
                backend.spans.clear()
                start = time.thread_time()
                upscaler(frame, **call)
                end = time.thread_time()
                calls.append(FrameTrace(name, start, end, tuple(backend.spans)))
        traces.append(min(calls[2:], key=lambda each: each.end - each.start))
    return traces


def draw(traces: Sequence[FrameTrace], title: str, path: Path) -> None:
    """Draw traces below each other on one time axis.

    Args:
        traces: The calls.
        title: Line above the picture.
        path: SVG or PNG file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    mpl.rcParams["svg.hashsalt"] = "timeline"
    figure, axes = pyplot.subplots(figsize=(10, 0.55 * len(traces) + 1.6), layout="constrained")
    for row, each in enumerate(traces):
        total = 1e3 * (each.end - each.start)
        axes.barh(row, total, height=0.62, color="#e5e7e9")
        for span in each.spans:
            left, width = 1e3 * (span.start - each.start), 1e3 * (span.end - span.start)
            axes.barh(row, width, left=left, height=0.62, color=COLOURS[span.kind])
        axes.text(total, row, f"  {total:.0f} ms", va="center", fontsize=9)
    axes.set_yticks(range(len(traces)), [each.mode for each in traces])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1e3 * max(each.end - each.start for each in traces))
    axes.set_xlabel("milliseconds of CPU time since the call")
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    patches = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    patches.append(Patch(color="#e5e7e9", label="Python"))
    figure.legend(handles=patches, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Number of calls in each mode.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=ROOT / "docs" / "images" / "timeline.svg",
    help="SVG or PNG file to write.",
)
def main(repeats: int, out: Path) -> None:
    """Draw the timeline of a frame of the sample picture."""
    picture = np.array(Image.open(ROOT / "samples" / "kodim23.png").convert("RGB"))
    frame = np.ascontiguousarray(picture[:128, :160])
    bundle = default_bundle()
    height, width = frame.shape[:2]
    title = f"One frame of {width}x{height}, x{bundle.manifest.scale}, ONNX Runtime on one CPU core"
    draw(trace(bundle, frame, repeats), title, out)


if __name__ == "__main__":
    main()
