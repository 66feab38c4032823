"""What an actor is given, what it does with it, and what it answers. Needs no Ray."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.imaging.image_files import ImageTask, Upscaled, upscale_file
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.chunks import Chunk, ChunkWriter, WorkFolder
from ikc_deploy.video.clip import Clip, ClipRange
from ikc_deploy.video.encoders import Encoder
from ikc_deploy.video.file_sink import CHUNK_FRAMES
from ikc_deploy.video.interfaces import Frame, StreamFacts, UpscalerAdapter
from ikc_deploy.video.stream_job import upscale_stream

ATTEMPTS: Final = 2
"""How often an actor tries a task that fails for a reason that may pass."""


@dataclass(frozen=True)
class ChunkTask:
    """A piece of a clip, upscaled into a folder of its own."""

    source: Path
    clip_range: ClipRange
    facts: StreamFacts
    """The clip's."""
    encoder: Encoder
    chunk_folder: Path
    """Where the finished piece goes, as a `WorkFolder`'s target."""


Task = ImageTask | ChunkTask


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task."""

    done: Upscaled | None = None
    """Of a picture."""
    warnings: tuple[str, ...] = ()
    """What was wrong with a piece."""
    error: str | None = None
    """Why it failed."""


def finished_chunk(chunk_folder: Path) -> list[Chunk] | None:
    """What a finished piece consists of; None if it is not finished."""
    folder = WorkFolder(chunk_folder)
    return folder.chunks() if folder.path.is_dir() else None


def do(task: Task, upscaler: Upscaler, sigma: float | None) -> TaskOutcome:
    """Do a task, twice if need be; an error is part of the outcome."""
    error = ""
    for _ in range(ATTEMPTS):
        try:
            if isinstance(task, ImageTask):
                return TaskOutcome(done=upscale_file(upscaler, task, sigma))
            return TaskOutcome(warnings=_upscale_chunk(task, upscaler, sigma))
        except (IkcError, OSError) as caught:
            error = " ".join(str(caught).split())
            if isinstance(caught, InputError):
                break  # It will not be another picture the next time.
    return TaskOutcome(error=error)


class _ChunkSink:
    """Writes a piece; what an earlier attempt finished of it is kept."""

    warnings = ()

    def __init__(self, job: ChunkTask, scale: int) -> None:
        self._chunk_folder = job.chunk_folder
        self._folder = WorkFolder(job.chunk_folder.with_name(f"{job.chunk_folder.name}.part"))
        run = {"source": str(job.source), "piece": asdict(job.clip_range)}
        self.done = sum(each.frames for each in self._folder.open(run, resume=True))
        facts = job.facts.scaled(scale)
        self._writer = ChunkWriter(self._folder, job.encoder, facts, self.done, CHUNK_FRAMES)

    def write(self, frame: Frame) -> None:
        self._writer.write(frame)

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - a sink's signature
        """Give the piece, which nobody interrupts, its name."""
        self._writer.finish()
        self._folder.release()
        self._folder.path.rename(WorkFolder(self._chunk_folder).path)
        return ()

    def abort(self) -> None:
        self._writer.abort()
        self._folder.release()


def _upscale_chunk(job: ChunkTask, upscaler: Upscaler, sigma: float | None) -> tuple[str, ...]:
    if finished_chunk(job.chunk_folder) is not None:
        return ()  # By an actor that died before it could say so.
    with closing(Clip(job.source, clip_range=job.clip_range)) as clip:
        clip.facts = job.facts
        sink = _ChunkSink(job, upscaler.scale)
        outcome = upscale_stream(clip, UpscalerAdapter(upscaler, sigma), sink, threading.Event())
    return outcome.warnings
