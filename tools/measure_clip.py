"""Measure how busy the device or the cores are while a clip is upscaled.

    python -m tools.measure_clip                          # one frame at a time against two
    python -m tools.measure_clip --backend openvino --streams 1 --streams 2 --streams 3
    python -m tools.measure_clip --size 960x540 --frames 20 --json clip.json
    python -m tools.measure_clip --clip in.mp4

The whole road of `ikc-upscale` runs: decoding, upscaling, encoding. Candidates run in turn, several
rounds of them, so that the ratios within a round are comparable; the first round only warms up.
Reported for each number of frames at the same time, as medians over the rounds:

- fps: output frames per second, and its ratio to the first candidate within a round;
- computing: share of the time in which at least one frame's networks run (queued and waited for, so
  on a GPU including the launch);
- networks: seconds of the networks per second, by the backend's own clock (CUDA events on a GPU);
  above 1 if those of two frames overlap;
- cores: CPU time of the process over time and number of cores.

What `computing` lacks of 1 is the time in which no network runs, because copies, Python,
postprocessing, the decoder or the encoder are waited for. One frame at a time is what clips did
before they had several workers. Run it on a machine without other work.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import av
import click
import numpy as np
from PIL import Image

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.cli._value_types import WIDTH_HEIGHT
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.runtime.backends.backend_names import BACKENDS
from ikc_deploy.runtime.estimation import ESTIMATES, Estimate
from ikc_deploy.runtime.executor import NetworkExecutor
from ikc_deploy.runtime.given_blur import BlurSettings
from ikc_deploy.runtime.options import CLIP_ESTIMATE, UpscalerOptions
from ikc_deploy.runtime.upscaler import Upscaler, load_bundle
from ikc_deploy.video.clip_upscaler import ClipUpscaler
from ikc_deploy.video.request import Request
from ikc_deploy.video.video_run import Callbacks, run_request

ROOT: Final = Path(__file__).resolve().parents[1]
RATE: Final = 25


@dataclass(frozen=True)
class ClipTiming:
    """One run of a clip."""

    streams: int
    """Number of frames at the same time."""
    fps: float
    """Frames per second, from the first request of a frame to the end of the encoder."""
    computing: float
    """Share of the time in which at least one frame's networks run."""
    networks: float
    """Seconds of the networks per second."""
    cores: float
    """CPU time over time and number of cores."""


class NetworkClock:
    """The intervals in which networks ran, of all threads."""

    def __init__(self) -> None:
        self.intervals: list[tuple[float, float]] = []
        self.seconds = 0.0
        self._lock = threading.Lock()

    def note(self, start: float, end: float, seconds: float) -> None:
        """Add an interval, and the seconds of the networks in it."""
        with self._lock:
            self.intervals.append((start, end))
            self.seconds += seconds

    @property
    def covered(self) -> float:
        """Seconds that at least one interval covers."""
        total, last = 0.0, 0.0
        for start, end in sorted(self.intervals):
            total += max(0.0, end - max(start, last))
            last = max(last, end)
        return total


@contextmanager
def network_clock() -> Iterator[NetworkClock]:
    """Note what every executor runs during the block."""
    clock, original = NetworkClock(), NetworkExecutor.run

    def timed(self: NetworkExecutor, *arguments: Any) -> None:
        before, start = sum(self.timings.values()), time.perf_counter()
        original(self, *arguments)
        end = time.perf_counter()
        clock.note(start, end, 1e-3 * (sum(self.timings.values()) - before))

    NetworkExecutor.run = timed  # type: ignore[assignment,method-assign]
    try:
        yield clock
    finally:
        NetworkExecutor.run = original  # type: ignore[method-assign]


def run_clip_once(
    upscaler: Upscaler, request: Request, estimate: Estimate, streams: int
) -> ClipTiming:
    """Upscale a clip to its file, and return how busy device and cores were.

    Args:
        upscaler: The upscaler.
        request: The clip and its output.
        estimate: Way to estimate the blur.
        streams: Number of frames at the same time, for the result.
    """
    frames = ClipUpscaler(upscaler, BlurSettings(estimate=estimate))
    with network_clock() as clock:
        start, cpu = time.perf_counter(), time.process_time()
        report = run_request(request, frames, threading.Event(), Callbacks())
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    cores = len(os.sched_getaffinity(0))
    return ClipTiming(
        streams,
        report.frames / seconds,
        clock.covered / seconds,
        clock.seconds / seconds,
        cpu / seconds / cores,
    )


def made_clip(path: Path, size: tuple[int, int], frames: int) -> None:
    """Write a clip that moves over the sample picture.

    Args:
        path: Video file to write.
        size: Width and height of the frames.
        frames: Number of frames.
    """
    width, height = size
    picture = Image.open(ROOT / "samples" / "kodim23.png").convert("RGB")
    scale = max((width + frames) / picture.width, (height + frames) / picture.height)
    sides = round(scale * picture.width) + 1, round(scale * picture.height) + 1
    pixels = np.asarray(picture.resize(sides, Image.Resampling.LANCZOS))
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", RATE, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            part = np.ascontiguousarray(pixels[number : number + height, number : number + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, "rgb24")))
        container.mux(stream.encode())


def measure(
    bundle: Bundle,
    options: UpscalerOptions,
    clip: Path,
    streams: Sequence[int],
    rounds: int,
) -> list[list[ClipTiming]]:
    """Return the rounds, in each of which every candidate ran once.

    Args:
        bundle: The bundle.
        options: Options of all candidates, except `streams`.
        clip: The clip.
        streams: The candidates.
        rounds: Number of rounds after the one that warms up.
    """
    estimate = options.estimate
    done = []
    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            number: load_bundle(bundle, replace(options, streams=number)) for number in streams
        }
        try:
            for number in range(rounds + 1):
                timings = []
                for count, upscaler in candidates.items():
                    target = Path(folder) / f"{number}-{count}.mkv"
                    request = Request(source=clip, target=target)
                    timings.append(run_clip_once(upscaler, request, estimate, count))
                    target.unlink()
                if number:
                    done.append(timings)
        finally:
            for upscaler in candidates.values():
                upscaler.close()
    return done


def show(rounds: Sequence[Sequence[ClipTiming]]) -> None:
    """Print a line for each candidate."""
    click.echo("streams     fps   ratio  computing  networks  cores")
    for column, first in zip(zip(*rounds, strict=True), rounds[0], strict=True):
        ratio = statistics.median(
            each.fps / timings[0].fps for each, timings in zip(column, rounds, strict=True)
        )
        fps, computing, networks, cores = (
            statistics.median(getattr(each, name) for each in column)
            for name in ("fps", "computing", "networks", "cores")
        )
        click.echo(
            f"{first.streams:7d} {fps:7.2f} {ratio:7.3f} {computing:10.3f} {networks:9.3f} "
            f"{cores:6.3f}"
        )


@click.command()
@click.option(
    "--bundle",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Bundle; default: that of the shipped weights.",
)
@click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto")
@click.option("--device", default=UpscalerOptions.device, help="Device of the backend.")
@click.option("--threads", default=UpscalerOptions.threads, help="CPU cores; 0 for all.")
@click.option("--estimate", type=click.Choice(ESTIMATES), default=CLIP_ESTIMATE, show_default=True)
@click.option(
    "--clip",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Clip; default: one that moves over the sample picture.",
)
@click.option("--size", type=WIDTH_HEIGHT, default="160x90", help="Size of the default clip.")
@click.option("--frames", default=24, show_default=True, help="Number of its frames.")
@click.option(
    "--streams",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 2),
    show_default=True,
    help="Number of frames at the same time; the first is what the others are compared with.",
)
@click.option("--rounds", default=3, show_default=True, help="Number of rounds.")
@click.option("--json", "target", type=click.Path(dir_okay=False, path_type=Path))
def main(
    folder: Path | None,
    backend: str,
    device: str,
    threads: int,
    estimate: Estimate,
    clip: Path | None,
    size: tuple[int, int],
    frames: int,
    streams: tuple[int, ...],
    rounds: int,
    target: Path | None,
) -> None:
    """Measure the share of the time in which networks run during a clip."""
    options = UpscalerOptions(backend=backend, device=device, threads=threads, estimate=estimate)
    bundle = default_bundle() if folder is None else Bundle.open(folder)
    with tempfile.TemporaryDirectory() as temporary:
        if clip is None:
            clip = Path(temporary) / "clip.mkv"
            made_clip(clip, size, frames)
        done = measure(bundle, options, clip, streams, rounds)
    show(done)
    if target is not None:
        target.write_text(json.dumps([[asdict(each) for each in row] for row in done], indent=1))


if __name__ == "__main__":
    main()
