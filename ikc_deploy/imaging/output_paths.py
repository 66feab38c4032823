"""Output files of image files: their paths, checked before the work, and those that exist already.

Reads no image and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ikc_deploy.errors import InputError
from ikc_deploy.files import check_file, real_path
from ikc_deploy.imaging.file_upscaling import KERNELS_FILE, ImageTask
from ikc_deploy.imaging.input_files import find_files, join_names
from ikc_deploy.imaging.picture import MAX_PIXELS
from ikc_deploy.imaging.suffixes import WRITABLE_SUFFIXES
from ikc_deploy.imaging.writing import has_unwritable_suffix
from ikc_deploy.option_fields import Option, check_options


def plan_tasks(
    inputs: Sequence[Path],
    out: Path,
    steps: Path | None = None,
    max_pixels: int | None = MAX_PIXELS,
    *,
    recursive: bool = False,
) -> list[ImageTask]:
    """Return the tasks for image files and folders of images, in order.

    Reads no image and writes nothing.

    Args:
        inputs: Image files, and folders whose image files are upscaled (subfolders are not
            searched). The same file given twice is one task.
        out: The output file, if there is one image and `out` has an image suffix; otherwise a
            folder, in which every output has the name of its input (ending in .png where the
            format of the input cannot be written).
        steps: Folder in which each task gets a subfolder, named as its input without suffix, for
            the images of its steps; None for none.
        max_pixels: Maximum number of pixels of an input; None for no limit.
        recursive: Whether to search subfolders too; outputs then get the same subfolders.

    Raises:
        InputError: An input does not exist or a folder has no image; two inputs have the same
            output; an output would overwrite an input; or its format is unknown.
        OutputError: An output cannot be written, because its name is too long or its place is
            not a folder.
    """
    places = find_files(inputs, recursive_to=out if recursive else None)
    return image_tasks(places, out, steps, max_pixels)


def image_tasks(
    places: Mapping[Path, Path],
    out: Path,
    steps: Path | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> list[ImageTask]:
    """Return the tasks for images, as `plan_tasks`.

    Args:
        places: Subfolder of the output by image, from `find_files`.
        out: As for `plan_tasks`.
        steps: As for `plan_tasks`.
        max_pixels: As for `plan_tasks`.

    Raises:
        InputError: As `plan_tasks`.
        OutputError: As `plan_tasks`.
    """
    outputs = dict(zip(places, _targets(places, out), strict=True))
    check_outputs(outputs)
    folders = {} if steps is None else {each: steps / places[each] / each.stem for each in places}
    _check_folders(folders)
    return [
        ImageTask(source, target, folders.get(source), max_pixels=max_pixels)
        for source, target in outputs.items()
    ]


def _check_folders(folders: Mapping[Path, Path]) -> None:
    """Check the folders of the steps, by input."""
    _refuse_shared(folders)
    inside = {real_path(source).parent: source for source in folders}
    for folder in folders.values():
        overwritten = inside.get(real_path(folder))
        if overwritten is not None:
            raise InputError(f"'{overwritten}' would be overwritten; choose another output")
        check_file(folder / KERNELS_FILE)


def check_outputs(outputs: Mapping[Path, Path]) -> None:
    """Check the outputs of all inputs, by input.

    Raises:
        InputError: Two inputs have the same output, or an output would overwrite an input.
        OutputError: An output cannot be written, because its name is too long or its place is
            not a folder.
    """
    _refuse_shared(outputs)
    given = {real_path(source): source for source in outputs}
    for target in outputs.values():
        overwritten = given.get(real_path(target))
        if overwritten is not None:
            raise InputError(f"'{overwritten}' would be overwritten; choose another output")
    for target in outputs.values():
        check_file(target)


def _targets(places: Mapping[Path, Path], out: Path) -> list[Path]:
    sources = list(places)
    if out.suffix.lower() in WRITABLE_SUFFIXES and not out.is_dir():
        if len(sources) > 1:
            raise InputError(
                f"'{out}' is the name of one image, but there are {len(sources)} to write; "
                "give a folder"
            )
        return [out]
    if not out.is_dir() and _names_unwritable_file(out, sources):
        raise InputError(
            f"invalid output '{out}': files ending in '{out.suffix}' cannot be written; use one of "
            f"{', '.join(WRITABLE_SUFFIXES)}, or create the folder '{out}' first if it is a folder"
        )
    if out.exists() and not out.is_dir():
        raise InputError(
            f"'{out}' is a file; give a folder, or a file ending in {', '.join(WRITABLE_SUFFIXES)}"
        )
    return [out / place / output_name(source) for source, place in places.items()]


def _names_unwritable_file(out: Path, sources: Sequence[Path]) -> bool:
    """Return whether an output that does not exist names a file that cannot be written.

    For a single image, any suffix of letters counts; for several, only a known file suffix.
    """
    if out.exists():
        return False
    return has_unwritable_suffix(out) or (len(sources) == 1 and _has_suffix_of_letters(out))


def _has_suffix_of_letters(path: Path) -> bool:
    """Return whether a name ends like a file name: `a.jpgg`, but not `run.2`."""
    return path.suffix[1:2].isalpha()


def output_name(source: Path) -> str:
    """Return the name of the output of an image in a folder."""
    writable = source.suffix.lower() in WRITABLE_SUFFIXES
    return source.name if writable else f"{source.stem}.png"


def _refuse_shared(outputs: Mapping[Path, Path]) -> None:
    owners: dict[Path, Path] = {}
    for source, place in outputs.items():
        owner = owners.setdefault(place, source)
        if owner != source:
            raise InputError(
                f"'{owner}' and '{source}' would both be written to '{place}'; "
                "rename one, or upscale them into different folders"
            )


@dataclass(frozen=True)
class ExistingOutputs:
    """How existing outputs are handled.

    Raises:
        InputError: Both are chosen.
    """

    overwrite: Annotated[
        bool,
        Option(
            "Replace outputs that exist; without it or --skip-existing, they are refused before "
            "any work."
        ),
    ] = False
    skip_existing: Annotated[
        bool,
        Option("Keep outputs that exist, and upscale only the other inputs.", heading="Output"),
    ] = False

    def __post_init__(self) -> None:
        """Require at most one of the two."""
        check_options(self)
        if self.overwrite and self.skip_existing:
            raise InputError("give --overwrite or --skip-existing, not both")

    def skips(self, target: Path) -> bool:
        """Return whether `target` exists and is kept."""
        return self.skip_existing and target.exists()

    def check(self, targets: Sequence[Path]) -> None:
        """Refuse existing files unless they may be replaced.

        Args:
            targets: All files that would be written, without those for which `skips` is True.

        Raises:
            InputError: A target exists; the message names the first few.
        """
        if self.overwrite:
            return
        found = [path for path in targets if path.exists()]
        if len(found) == 1:
            raise InputError(
                f"'{found[0]}' exists; give --overwrite to replace it, --skip-existing to keep it, "
                "or another output"
            )
        if found:
            raise InputError(
                f"{len(found)} outputs exist ({join_names(found)}); give --overwrite to replace "
                "them, --skip-existing to keep them, or another output folder"
            )
