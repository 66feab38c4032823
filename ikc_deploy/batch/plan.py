"""Planning of a batch: the missing outputs, and the tasks that produce them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ikc_deploy.batch.run_state import BatchRunState, fingerprint
from ikc_deploy.batch.tasks import ChunkTask, Task, finished_chunk
from ikc_deploy.errors import InputError
from ikc_deploy.files import check_file
from ikc_deploy.imaging.image_files import ImageTask, plan_tasks
from ikc_deploy.imaging.image_io import IMAGE_SUFFIXES, MAX_PIXELS, list_folder, names_other_file
from ikc_deploy.video.clip import Clip
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.encoders import choose_encoder
from ikc_deploy.video.file_sink import CHUNK_FRAMES
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.mux import mux
from ikc_deploy.video.names import CONTAINERS, VIDEO_SUFFIXES, container_of
from ikc_deploy.video.passthrough import PassthroughStreams, check_output
from ikc_deploy.video.split_points import split_ranges

BATCH_SUFFIXES: Final = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
"""Suffixes of the files that are listed from folders."""


@dataclass(frozen=True)
class Inputs:
    """The files to upscale and their outputs."""

    pictures: tuple[ImageTask, ...]
    """Tasks of the images."""
    clips: tuple[tuple[Path, Path], ...]
    """Source and target of each clip."""


def find_inputs(paths: Sequence[Path], out: Path, max_pixels: int | None = MAX_PIXELS) -> Inputs:
    """Find the images and clips to upscale, and name their outputs.

    Outputs keep the names of their inputs; clips in containers that cannot be written become .mkv.

    Args:
        paths: Files, and folders whose files are upscaled (subfolders are not searched).
        out: The output folder.
        max_pixels: Maximum number of pixels of an image; None for no limit.

    Raises:
        InputError: A path does not exist or holds no image or clip; two inputs have the same
            output; an output would overwrite an input; or `out` is a file.
        OutputError: An output cannot be written, because its name is too long or its place is
            not a folder.
    """
    suffixes = (*IMAGE_SUFFIXES, *CONTAINERS)
    known = out.suffix.lower() in suffixes or names_other_file(out)
    if not out.is_dir() and (out.exists() or known):
        raise InputError(f"'{out}' is a file; --ray writes into a folder")
    files = [file for path in paths for file in _files(path)]
    clips = {file.absolute(): out / _clip_name(file) for file in files if _is_clip(file)}
    pictures = [file.absolute() for file in files if not _is_clip(file)]
    jobs = plan_tasks(pictures, out, max_pixels=max_pixels) if pictures else []
    for target, claims in Counter(clips.values()).items():
        if claims > 1:
            raise InputError(f"two clips would be written to '{target}'; rename one of them")
        if target.absolute() in clips:
            raise InputError(f"'{target}' would be overwritten; choose another output folder")
    for target in clips.values():
        check_file(target)
    jobs = [replace(job, target=job.target.absolute()) for job in jobs]
    return Inputs(tuple(jobs), tuple((clip, place.absolute()) for clip, place in clips.items()))


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
    companions: PassthroughStreams | None
    """Streams, tags and chapters to copy from the source."""
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
        self.warnings += mux(chunks, self.facts, self.target, self.companions)
        shutil.rmtree(self.folder, ignore_errors=True)
        return sum(chunk.frames for chunk in chunks)


def plan_clip(
    source: Path,
    target: Path,
    scale: int,
    settings: EncoderSettings,
    run: dict[str, Any],
    run_state: BatchRunState,
) -> ClipPlan:
    """Plan a clip in chunks.

    Args:
        source: The clip.
        target: The video file to write.
        scale: Scale factor s.
        settings: Requested codec and quality.
        run: Description of the upscaling (JSON values).
        run_state: Record of the output folder.

    Raises:
        VideoError: The output cannot be written.
        UnreadableClipError: The clip cannot be read.
        NoVideoError: The clip has no video stream.
        EncoderError: No encoder works.
    """
    container = container_of(target)
    with closing(Clip(source)) as clip:
        facts = clip.facts.scaled(scale)
        encoder = choose_encoder(settings, facts, container)
        companions, sink_warnings = check_output(target, encoder, facts, clip)
        ranges = split_ranges(clip, CHUNK_FRAMES)
    run = run | {"encoder": asdict(encoder)}
    made_from = fingerprint(source, run)
    folder = run_state.folder / made_from
    jobs = (
        ChunkTask(source, clip_range, clip.facts, encoder, folder / f"{number:06d}")
        for number, clip_range in enumerate(ranges)
    )
    return ClipPlan(
        source, target, made_from, facts, companions, folder, tuple(jobs), sink_warnings
    )


def weight(task: Task) -> int:
    """Return the share of a task in the progress bar: its frames, or 1 if they are not known."""
    return task.clip_range.packets or 1 if isinstance(task, ChunkTask) else 1


def _files(path: Path) -> Iterable[Path]:
    if not path.exists():
        raise InputError(f"there is no image, clip or folder '{path}'")
    if not path.is_dir():
        return [path]
    return list_folder(path, BATCH_SUFFIXES, "images or clips").found


def _is_clip(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES


def _clip_name(file: Path) -> str:
    # Matroska supports almost every audio codec.
    return file.name if file.suffix.lower() in CONTAINERS else f"{file.stem}.mkv"
