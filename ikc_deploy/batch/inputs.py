"""Inputs of a batch: images and clips with their outputs in one folder. Does not need PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.file_upscaling import ImageTask
from ikc_deploy.imaging.input_files import find_files
from ikc_deploy.imaging.output_paths import check_outputs, image_tasks, output_name
from ikc_deploy.imaging.picture import MAX_PIXELS
from ikc_deploy.imaging.suffixes import READABLE_SUFFIXES, WRITABLE_SUFFIXES
from ikc_deploy.imaging.writing import has_unwritable_suffix
from ikc_deploy.video.names import CONTAINERS, VIDEO_SUFFIXES

BATCH_SUFFIXES: Final = (*READABLE_SUFFIXES, *VIDEO_SUFFIXES)
"""Suffixes of the files that are listed from folders."""


@dataclass(frozen=True)
class ClipTask:
    """One clip to upscale."""

    source: Path
    """The clip."""
    target: Path
    """Video file to write."""


@dataclass(frozen=True)
class Inputs:
    """The files to upscale and their outputs."""

    tasks: tuple[ImageTask | ClipTask, ...]
    """Tasks in the order of the inputs, those of a folder in natural order."""

    @property
    def pictures(self) -> tuple[ImageTask, ...]:
        """Tasks of the images."""
        return tuple(task for task in self.tasks if isinstance(task, ImageTask))

    @property
    def clips(self) -> tuple[ClipTask, ...]:
        """Tasks of the clips."""
        return tuple(task for task in self.tasks if isinstance(task, ClipTask))

    def absolute(self) -> Inputs:
        """Return the same with absolute paths, for processes with another working directory."""
        return Inputs(
            tuple(
                replace(task, source=task.source.absolute(), target=task.target.absolute())
                for task in self.tasks
            )
        )


def find_inputs(
    paths: Sequence[Path],
    out: Path,
    steps: Path | None = None,
    max_pixels: int | None = MAX_PIXELS,
    *,
    recursive: bool = False,
) -> Inputs:
    """Find the images and clips to upscale, and name their outputs.

    Outputs keep the names of their inputs; clips in containers that cannot be written become .mkv.

    Args:
        paths: Files, and folders whose images and clips are upscaled.
        out: The output folder, or, for a single image, the output file.
        steps: As for `image_tasks`; only for images.
        max_pixels: Maximum number of pixels of an image; None for no limit.
        recursive: Whether to search subfolders too; outputs then get the same subfolders.

    Raises:
        InputError: A path does not exist or holds no image or clip; two inputs have the same
            output; an output would overwrite an input; or `out` is a file, but there are clips.
        OutputError: An output cannot be written, because its name is too long or its place is
            not a folder.
    """
    places = find_files(
        paths,
        BATCH_SUFFIXES,
        "image, clip",
        "images or clips",
        recursive_to=out if recursive else None,
    )
    if not any(map(is_clip, places)):
        return Inputs(tuple(image_tasks(places, out, steps, max_pixels)))
    require_folder(out)
    outputs = {source: out / place / _name(source) for source, place in places.items()}
    check_outputs(outputs)
    return Inputs(
        tuple(
            ClipTask(source, target)
            if is_clip(source)
            else ImageTask(source, target, max_pixels=max_pixels)
            for source, target in outputs.items()
        )
    )


def require_folder(out: Path) -> None:
    """Raise `InputError` if the output of several inputs is a file, or named like one."""
    known = out.suffix.lower() in (*WRITABLE_SUFFIXES, *CONTAINERS) or has_unwritable_suffix(out)
    if not out.is_dir() and (out.exists() or known):
        raise InputError(f"'{out}' is a file; give a folder, in which outputs keep their names")


def is_clip(file: Path) -> bool:
    """Return whether a file is a clip, by its suffix."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def _name(file: Path) -> str:
    if not is_clip(file):
        return output_name(file)
    # Matroska supports almost every audio codec.
    return file.name if file.suffix.lower() in CONTAINERS else f"{file.stem}.mkv"
