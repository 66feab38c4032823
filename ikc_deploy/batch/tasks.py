"""The tasks of an actor, their execution and their outcome. Does not need Ray."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.imaging.file_upscaling import ImageTask, Upscaled, upscale_file
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.runtime.given_blur import BlurSettings
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.chunks import Chunk, ChunkWriter, WorkFolder
from ikc_deploy.video.clip import Clip, ClipRange
from ikc_deploy.video.clip_upscaler import ClipUpscaler
from ikc_deploy.video.encoders import Encoder
from ikc_deploy.video.file_sink import CHUNK_FRAMES
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.video_run import upscale_stream

ATTEMPTS: Final = 2
"""Number of times that an actor tries a task that fails for a possibly temporary reason."""


@dataclass(frozen=True)
class ChunkTask:
    """A range of a clip to upscale into a separate folder."""

    source: Path
    """The clip."""
    clip_range: ClipRange
    """Range of the clip to upscale."""
    facts: StreamFacts
    """Properties of the clip."""
    output: StreamFacts
    """Properties of the output."""
    encoder: Encoder
    """Encoder of the output."""
    chunk_folder: Path
    """Target of the `WorkFolder` for the finished chunks."""
    postprocessing: Postprocessing
    """Strength and output size."""


Task = ImageTask | ChunkTask


@dataclass(frozen=True)
class TaskOutcome:
    """The outcome of a task."""

    done: Upscaled | None = None
    """Result of an image; None for a chunk or a failed task."""
    warnings: tuple[str, ...] = ()
    """Problems of a range of a clip."""
    error: str | None = None
    """Reason of the failure; None for success."""


def finished_chunk(chunk_folder: Path) -> list[Chunk] | None:
    """Return the chunks of a finished `ChunkTask`; None if it is not finished."""
    folder = WorkFolder(chunk_folder)
    return folder.chunks() if folder.path.is_dir() else None


def run_task(task: Task, upscaler: Upscaler, sigma: float | None) -> TaskOutcome:
    """Run a task, with at most `ATTEMPTS` attempts; errors are returned in the outcome.

    Args:
        task: The task.
        upscaler: The upscaler of the actor.
        sigma: Blur in HR pixels; None to estimate it.
    """
    error = ""
    for _ in range(ATTEMPTS):
        try:
            if isinstance(task, ImageTask):
                return TaskOutcome(done=upscale_file(upscaler, task, sigma))
            return TaskOutcome(warnings=_upscale_chunk(task, upscaler, sigma))
        except (IkcError, OSError) as caught:
            error = " ".join(str(caught).split())
            if isinstance(caught, InputError):
                break  # A second attempt would read the same image.
    return TaskOutcome(error=error)


class _ChunkSink:
    """A sink for one `ChunkTask`, which keeps the finished chunks of earlier attempts."""

    warnings = ()

    def __init__(self, job: ChunkTask) -> None:
        self._chunk_folder = job.chunk_folder
        self._folder = WorkFolder(job.chunk_folder.with_name(f"{job.chunk_folder.name}.part"))
        run = {"source": str(job.source), "piece": asdict(job.clip_range)}
        self.done = sum(each.frames for each in self._folder.open(run, resume=True))
        self._writer = ChunkWriter(self._folder, job.encoder, job.output, self.done, CHUNK_FRAMES)

    def write(self, frame: Frame) -> None:
        self._writer.write(frame)

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - a sink's signature
        """Finish the chunks and rename their folder; a chunk task is never interrupted."""
        self._writer.finish()
        self._folder.release()
        self._folder.path.rename(WorkFolder(self._chunk_folder).path)
        return ()

    def abort(self) -> None:
        self._writer.abort()
        self._folder.release()


def _upscale_chunk(job: ChunkTask, upscaler: Upscaler, sigma: float | None) -> tuple[str, ...]:
    if finished_chunk(job.chunk_folder) is not None:
        return ()  # Finished by an actor that died before it returned.
    with closing(Clip(job.source, clip_range=job.clip_range)) as clip:
        clip.facts = job.facts
        sink = _ChunkSink(job)
        blur = BlurSettings(sigma, estimate=upscaler.estimate)
        frames = ClipUpscaler(upscaler, blur, job.postprocessing)
        report = upscale_stream(clip, frames, sink, threading.Event())
    return report.warnings
