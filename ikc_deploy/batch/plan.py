"""Planning of a batch: the missing outputs, and the tasks that produce them."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ikc_deploy.batch.run_state import BatchRunState, fingerprint
from ikc_deploy.batch.tasks import ChunkTask, Task, finished_chunk
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.video.clip import Clip
from ikc_deploy.video.clip_upscaler import output_facts
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.encoders import choose_encoder
from ikc_deploy.video.file_sink import CHUNK_FRAMES
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.mux import mux
from ikc_deploy.video.names import container_of
from ikc_deploy.video.passthrough import Passthrough
from ikc_deploy.video.split_points import split_ranges
from ikc_deploy.video.trial import check_output


@dataclass(eq=False)
class ClipPlan:
    """The plan of one clip: its chunk tasks, and the data to join their results."""

    source: Path
    """The clip."""
    target: Path
    """Video file to write."""
    made_from: str
    """Fingerprint of the source and the settings."""
    facts: StreamFacts
    """Properties of the output."""
    passthrough: Passthrough | None
    """Streams, tags and chapters to take from the source."""
    folder: Path
    """Folder of the unfinished chunks."""
    jobs: tuple[ChunkTask, ...]
    """Chunk tasks, in order."""
    warnings: list[str] = field(default_factory=list)
    """Problems of the source, and parts that the output lacks."""

    def missing(self) -> list[ChunkTask]:
        """Return the chunk tasks that are not finished."""
        return [job for job in self.jobs if finished_chunk(job.chunk_folder) is None]

    def finish(self) -> int:
        """Join the chunks to the target, delete them, and return the number of frames.

        Raises:
            VideoError: The target cannot be written; the chunks are kept.
            DiskFullError: The disk is full; the chunks are kept.
        """
        chunks = [each for job in self.jobs for each in finished_chunk(job.chunk_folder) or ()]
        self.warnings += mux(chunks, self.facts, self.target, self.passthrough)
        shutil.rmtree(self.folder, ignore_errors=True)
        return sum(chunk.frames for chunk in chunks)


def plan_clip(
    source: Path,
    target: Path,
    scale: int,
    settings: EncoderSettings,
    postprocessing: Postprocessing,
    run: dict[str, Any],
    run_state: BatchRunState,
) -> ClipPlan:
    """Plan a clip in chunks.

    Args:
        source: The clip.
        target: The video file to write.
        scale: Scale factor s.
        settings: Requested codec and quality.
        postprocessing: Strength and output size.
        run: Description of the upscaling (JSON values).
        run_state: Record of the output folder.

    Raises:
        InputError: The output size is impossible.
        VideoError: The output cannot be written.
        UnreadableClipError: The clip cannot be read.
        NoVideoError: The clip has no video stream.
        EncoderError: No encoder works.
    """
    container = container_of(target)
    with closing(Clip(source)) as clip:
        facts = output_facts(clip.facts, postprocessing, scale, str(source))
        encoder = choose_encoder(settings, facts, container)
        passthrough, sink_warnings = check_output(target, encoder, facts, clip)
        ranges = split_ranges(clip, CHUNK_FRAMES)
    run = run | {"encoder": asdict(encoder)}
    made_from = fingerprint(source, run)
    folder = run_state.folder / made_from
    jobs = (
        ChunkTask(
            source,
            clip_range,
            clip.facts,
            facts,
            encoder,
            folder / f"{number:06d}",
            postprocessing,
        )
        for number, clip_range in enumerate(ranges)
    )
    return ClipPlan(
        source, target, made_from, facts, passthrough, folder, tuple(jobs), sink_warnings
    )


def weight(task: Task) -> int:
    """Return the share of a task in the progress bar: its frames, or 1 if they are not known."""
    return task.clip_range.packets or 1 if isinstance(task, ChunkTask) else 1
