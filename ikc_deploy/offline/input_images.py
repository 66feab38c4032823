"""The input images of a run of `ikc-offline`, with the output folder of each.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.input_files import find_files
from ikc_deploy.imaging.suffixes import READABLE_SUFFIXES


@dataclass(frozen=True)
class OfflineInput:
    """One image to fit."""

    image: Path
    """LR image file."""
    out: Path
    """Folder of its results."""
    reference: Path | None
    """HR image file; None for none."""
    true_kernel: Path | None
    """Kernel file; None for none."""


def find_images(
    inputs: Sequence[Path], out: Path, reference: Path | None, true_kernel: Path | None
) -> list[OfflineInput]:
    """Return the images to fit, in natural order.

    Args:
        inputs: Image files and folders of images.
        out: Folder of the results of a single image file; otherwise each image gets a subfolder,
            named as the image without suffix.
        reference: HR image; for several images, a folder with an HR image of the same name,
            in any format.
        true_kernel: Kernel file; for several images, a folder with NAME.npy for each.

    Raises:
        InputError: An input does not exist or has no image, two images have one name, or an HR
            image or a kernel is missing.
    """
    if len(inputs) == 1 and not inputs[0].is_dir():
        return [OfflineInput(inputs[0], out, reference, true_kernel)]
    images: dict[str, Path] = {}
    for path in find_files(inputs):
        other = images.setdefault(path.stem, path)
        if other != path:
            raise InputError(
                f"'{other}' and '{path}' would both be written to '{out / path.stem}'; rename one"
            )
    return [
        OfflineInput(
            path,
            out / name,
            _partner(reference, name, READABLE_SUFFIXES, "--reference"),
            _partner(true_kernel, name, (".npy",), "--true-kernel"),
        )
        for name, path in images.items()
    ]


def _partner(folder: Path | None, name: str, suffixes: Sequence[str], option: str) -> Path | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise InputError(f"for several images, {option} takes a folder, and '{folder}' is not one")
    for suffix in suffixes:
        if (folder / f"{name}{suffix}").exists():
            return folder / f"{name}{suffix}"
    raise InputError(f"{option}: '{folder}' has no {name}{' or '.join(suffixes[:2])}")
