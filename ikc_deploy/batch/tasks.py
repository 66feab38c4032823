"""What an actor is given, what it does with it, and what it answers. Needs no Ray."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.pictures import Job, Upscaled, upscale_file
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.video.clip import Clip, Piece
from ikc_deploy.video.encoders import Encoder
from ikc_deploy.video.files import SEGMENT_FRAMES
from ikc_deploy.video.frames import EachFrame, Frame, StreamFacts
from ikc_deploy.video.jobs import upscale_stream
from ikc_deploy.video.segments import Segment, SegmentWriter, WorkFolder

ATTEMPTS: Final = 2
"""How often an actor tries a task that fails for a reason that may pass."""


@dataclass(frozen=True)
class PieceJob:
    """A piece of a clip, upscaled into a folder of its own."""

    source: Path
    piece: Piece
    facts: StreamFacts
    """The clip's."""
    encoder: Encoder
    place: Path
    """Where the finished piece goes, as a `WorkFolder`'s target."""


Task = Job | PieceJob


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    done: Upscaled | None = None
    """Of a picture."""
    warnings: tuple[str, ...] = ()
    """What was wrong with a piece."""
    error: str | None = None
    """Why it failed."""


def finished_piece(place: Path) -> list[Segment] | None:
    """What a finished piece consists of; None if it is not finished."""
    folder = WorkFolder(place)
    return folder.segments() if folder.path.is_dir() else None


def do(task: Task, upscaler: Upscaler, sigma: float | None) -> Outcome:
    """Do a task, twice if need be; an error is part of the outcome."""
    error = ""
    for _ in range(ATTEMPTS):
        try:
            if isinstance(task, Job):
                return Outcome(done=upscale_file(upscaler, task, sigma))
            return Outcome(warnings=_upscale_piece(task, upscaler, sigma))
        except (IkcError, OSError) as caught:
            error = " ".join(str(caught).split())
            if isinstance(caught, InputError):
                break  # It will not be another picture the next time.
    return Outcome(error=error)


class _PieceSink:
    """Writes a piece; what an earlier attempt finished of it is kept."""

    notices = ()

    def __init__(self, job: PieceJob, scale: int) -> None:
        self._place = job.place
        self._folder = WorkFolder(job.place.with_name(f"{job.place.name}.part"))
        run = {"source": str(job.source), "piece": asdict(job.piece)}
        self.done = sum(each.frames for each in self._folder.open(run, resume=True))
        facts = job.facts.scaled(scale)
        self._writer = SegmentWriter(self._folder, job.encoder, facts, self.done, SEGMENT_FRAMES)

    def write(self, frame: Frame) -> None:
        self._writer.write(frame)

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - a sink's signature
        """Give the piece, which nobody interrupts, its name."""
        self._writer.finish()
        self._folder.release()
        self._folder.path.rename(WorkFolder(self._place).path)
        return ()

    def abort(self) -> None:
        self._writer.abort()
        self._folder.release()


def _upscale_piece(job: PieceJob, upscaler: Upscaler, sigma: float | None) -> tuple[str, ...]:
    if finished_piece(job.place) is not None:
        return ()  # By an actor that died before it could say so.
    with closing(Clip(job.source, piece=job.piece)) as clip:
        clip.facts = job.facts
        sink = _PieceSink(job, upscaler.scale)
        outcome = upscale_stream(clip, EachFrame(upscaler, sigma), sink, threading.Event())
    return outcome.warnings
