"""What a batch is to do: which outputs are missing, and the tasks that make them."""

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
from ikc_deploy.video.encoders import EncoderSettings, choose_encoder
from ikc_deploy.video.file_sink import CHUNK_FRAMES
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.mux import mux
from ikc_deploy.video.names import CONTAINERS, VIDEO_SUFFIXES, container_of
from ikc_deploy.video.passthrough import PassthroughStreams, check_output
from ikc_deploy.video.split_points import split_ranges

BATCH_SUFFIXES: Final = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
"""File name endings that folders are searched for."""


@dataclass(frozen=True)
class Inputs:
    """Files to upscale, and where each goes."""

    pictures: tuple[ImageTask, ...]
    clips: tuple[tuple[Path, Path], ...]
    """Source and target of each."""


def find_inputs(paths: Sequence[Path], out: Path, max_pixels: int | None = MAX_PIXELS) -> Inputs:
    """The pictures and clips among `paths` and in the folders among them (not below those).

    Outputs keep their input's name; clips in containers that are not written become .mkv. Raises
    `InputError` for paths that are missing or hold neither, for two that would share one output,
    and for an output that would overwrite an input.
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
    """A clip on its way: its pieces, and what is needed to put them together."""

    source: Path
    target: Path
    made_from: str
    facts: StreamFacts
    """The output's."""
    companions: PassthroughStreams | None
    folder: Path
    jobs: tuple[ChunkTask, ...]
    warnings: list[str] = field(default_factory=list)

    def missing(self) -> list[ChunkTask]:
        """The pieces that are not finished."""
        return [job for job in self.jobs if finished_chunk(job.chunk_folder) is None]

    def finish(self) -> int:
        """Join the pieces to the target and delete them; the number of frames.

        Raises `VideoError` or `DiskFullError`; the pieces then stay.
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
    """How to upscale a clip piece by piece, as `run` says (JSON values).

    Raises `VideoError`, `UnreadableClipError`, `NoVideoError` or `EncoderError`.
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
    """How much of the progress bar a task is: frames, as far as they are known."""
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
    # Matroska holds whatever sound there is.
    return file.name if file.suffix.lower() in CONTAINERS else f"{file.stem}.mkv"
