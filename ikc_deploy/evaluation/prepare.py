"""Image folders like those of the reference implementation's script (generate_mod_LR_bic).

    DST/HR/x4/NAME.png      the source, cropped to multiples of the scale
    DST/LR/x4/NAME.png      HR downscaled bicubically, not blurred
    DST/Bic/x4/NAME.png     LR upscaled bicubically
    DST/LRblur/x4/NAME.png  HR blurred by an isotropic Gaussian, then downscaled bicubically
    DST/kernels/x4.json     {NAME: sigma}
    DST/kernels/x4/NAME.npy the kernel, with FKP's convention

With FKP's convention, LRblur is HR correlated with an elliptic Gaussian and sampled at every
scale-th pixel (`ikc_deploy.kernels.conventions`), and sigma is the geometric mean along both axes.
Only images that the JSON file names are overwritten. During a run, and after one that was killed,
a hidden file beside it names the images that are being written.

The blur depends only on the seed and the image's name, so an image gets the same blur regardless of
the other images. Images of subfolders are named with them: sub/NAME. Needs only numpy and Pillow.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError, OutputError
from ikc_deploy.evaluation.datasets import read_hr
from ikc_deploy.files import check_file, real_path, write_atomically
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.input_files import find_files
from ikc_deploy.imaging.resize import quantize, resize_bicubic, upscale_bicubic
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.kernels import SIGMA_RANGES
from ikc_deploy.kernels.conventions import degrade_fkp, fkp_variances, shifted_gaussian
from ikc_deploy.locks import locked
from ikc_deploy.option_fields import Option, check_options
from ikc_deploy.parsing import read_json

IMAGE_FOLDERS: Final = ("HR", "LR", "LRblur", "Bic")
"""Folders of images that are written, named as in the reference implementation."""

Convention = Literal["ikc", "fkp"]
"""Conventions of the degradation: that of IKC's images, and that of FKP's."""

Progress = Callable[[int, int], None]
"""Callback with the number of images done and the number of all images."""


@dataclass(frozen=True)
class PrepareSettings:
    """The settings of the degradation.

    Raises:
        InputError: The scale is not 2, 3 or 4, or the range of sigma is invalid.
    """

    scale: Annotated[int, Option("HR side divided by LR side: 2, 3 or 4.")] = 4
    sigma_range: Annotated[
        tuple[float, float] | None,
        Option(
            "Range from which each image's sigma is drawn uniformly, in HR pixels; two equal "
            "values fix it.",
            default="the paper's range for the scale",
            metavar="LO HI",
        ),
    ] = None
    seed: Annotated[int, Option("Seed for drawing the sigmas.")] = 0
    convention: Annotated[
        Convention,
        Option(
            "Degradation of LRblur: ikc, isotropic Gaussians and bicubic downscaling; or fkp, "
            "elliptic Gaussians in the convention of FKP, each in kernels/xSCALE/NAME.npy."
        ),
    ] = "ikc"
    recursive: Annotated[
        bool, Option("Search subfolders of SRC too; the outputs get the same subfolders.")
    ] = False

    def __post_init__(self) -> None:
        """Require a supported scale and a positive range of sigma."""
        check_options(self)
        if self.convention == "fkp" and self.sigma_range is not None:
            raise InputError("the convention fkp draws ellipses; leave out the range of sigma")
        if self.scale not in SIGMA_RANGES:
            raise InputError(f"scale must be one of {sorted(SIGMA_RANGES)}, got {self.scale!r}")
        low, high = self.resolved_range
        if not 0 < low <= high < math.inf:
            raise InputError(f"sigma needs 0 < low <= high, in HR pixels; got {low:g} to {high:g}")

    @property
    def resolved_range(self) -> tuple[float, float]:
        """Range that sigma is drawn from, in HR pixels."""
        return SIGMA_RANGES[self.scale] if self.sigma_range is None else self.sigma_range

    def sigma(self, name: str) -> float:
        """Return the sigma of the image called `name`, in HR pixels."""
        if self.convention == "fkp":
            first, second, _ = self._ellipse(name)
            return (first * second) ** 0.25
        low, high = self.resolved_range
        return low + (high - low) * self._draws(name)[0]

    def fkp_kernel(self, name: str) -> NDArray[np.float64]:
        """Return the kernel `[k,k]` of the image called `name`, in the FKP convention."""
        return shifted_gaussian(*self._ellipse(name), self.scale)

    def _ellipse(self, name: str) -> tuple[float, float, float]:
        """Return variances along both axes, in HR pixels squared, and the direction in radians."""
        low, high = fkp_variances(self.scale)
        first, second, turn = self._draws(name)
        return low + (high - low) * first, low + (high - low) * second, math.pi * turn

    def _draws(self, name: str) -> list[float]:
        """Return three numbers in [0, 1) that depend on the seed and the name."""
        # A digest instead of a random generator: equal on every platform and numpy version.
        digest = hashlib.sha256(f"{self.seed}:{name}".encode("utf-8", "surrogateescape")).digest()
        return [int.from_bytes(digest[i : i + 6], "big") / 2**48 for i in (0, 6, 12)]


@dataclass(frozen=True)
class Layout:
    """The paths of the files of one destination and scale."""

    root: Path
    """Destination folder."""
    scale: int
    """Scale factor, part of every path."""

    @property
    def kernels(self) -> Path:
        """Path of the JSON file with every image's sigma."""
        return self.root / "kernels" / f"x{self.scale}.json"

    @property
    def unfinished(self) -> Path:
        """Path of the JSON file with the names of images that a run has not finished writing."""
        return self.kernels.with_name(f".x{self.scale}.unfinished.json")

    def kernel(self, name: str) -> Path:
        """Return the path of the kernel of one image, with FKP's convention."""
        return self.root / "kernels" / f"x{self.scale}" / f"{name}.npy"

    def image(self, folder: str, name: str) -> Path:
        """Return the path of one image in one of `IMAGE_FOLDERS`."""
        return self.root / folder / f"x{self.scale}" / f"{name}.png"


def prepare(
    sources: Sequence[Path],
    destination: Path,
    settings: PrepareSettings,
    progress: Progress = lambda *_: None,
) -> dict[str, float]:
    """Degrade images and write them into `destination`.

    Each file is written whole or not at all, the sigmas last; images of an earlier run keep their
    entry. A second run writes the same bytes.

    Args:
        sources: Image files, or folders of them.
        destination: Folder to write into; created if it is missing.
        settings: Settings of the degradation.
        progress: Called after every image.

    Returns:
        Sigma in HR pixels by image name.

    Raises:
        InputError: Before anything is written, if two sources have one name, a source is missing,
            or the destination lies in a source folder; and on reaching an image that cannot be
            read or is too small.
        OutputError: Before anything is written, if the destination cannot be written, or if a file
            that no earlier run wrote is in an image's place.
    """
    layout = Layout(destination, settings.scale)
    images = check_prepare(sources, destination, settings)
    with locked(destination):
        own = _check_places(images, layout)
        sigmas = {name: settings.sigma(name) for name in images}
        # From here on, an image with no entry or a different one is being written.
        write_atomically(layout.unfinished, _json(sorted({*own, *images})))
        recorded = _read_sigmas(layout.kernels)
        kept = {name: sigma for name, sigma in recorded.items() if sigmas.get(name, sigma) == sigma}
        if kept != recorded:
            write_atomically(layout.kernels, _json(kept))
        progress(0, len(images))
        for done, (name, path) in enumerate(images.items(), 1):
            _write_image(path, name, settings, layout)
            progress(done, len(images))
        write_atomically(layout.kernels, _json(recorded | sigmas))
        layout.unfinished.unlink()
    return sigmas


def check_prepare(
    sources: Sequence[Path], destination: Path, settings: PrepareSettings
) -> dict[str, Path]:
    """Return the images by name, after the checks that `prepare` makes before it writes.

    Raises:
        InputError: As `prepare`.
        OutputError: As `prepare`.
    """
    layout = Layout(destination, settings.scale)
    images = _find_images(sources, destination if settings.recursive else None)
    _check_destination(sources, images, layout, settings.recursive)
    _check_places(images, layout)
    return images


def _json(value: object) -> bytes:
    return f"{json.dumps(value, indent=2, sort_keys=True)}\n".encode()


def _check_places(images: dict[str, Path], layout: Layout) -> set[str]:
    """Refuse to overwrite files of others; return the names that earlier runs wrote."""
    for place in (layout.kernels, *(layout.image(folder, "any") for folder in IMAGE_FOLDERS)):
        check_file(place)
    own = {*_read_sigmas(layout.kernels), *_read_unfinished(layout.unfinished)}
    for name in images:
        # Kernels too: those of another convention are deleted.
        places = [layout.kernel(name), *(layout.image(each, name) for each in IMAGE_FOLDERS)]
        for place in places:
            if name not in own and place.exists():
                raise OutputError(
                    f"'{place}' exists and '{layout.kernels}' does not name it, so it would be "
                    "lost; choose another destination, or move it away"
                )
    return own


def _write_image(path: Path, name: str, settings: PrepareSettings, layout: Layout) -> None:
    hr = read_hr(path, layout.scale)
    lr = quantize(resize_bicubic(hr, 1 / layout.scale))
    write_rgb(hr, layout.image("HR", name))
    write_rgb(lr, layout.image("LR", name))
    if settings.convention == "fkp":
        kernel = settings.fkp_kernel(name)
        blurred = quantize(degrade_fkp(hr, kernel, layout.scale))
        buffer = io.BytesIO()
        np.save(buffer, kernel, allow_pickle=False)
        write_atomically(layout.kernel(name), buffer.getvalue())
    else:
        blurred = degrade_gaussian(hr, settings.sigma(name), layout.scale)
        layout.kernel(name).unlink(missing_ok=True)
    write_rgb(blurred, layout.image("LRblur", name))
    write_rgb(upscale_bicubic(lr, layout.scale), layout.image("Bic", name))


def _find_images(sources: Sequence[Path], recursive_to: Path | None) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path, place in find_files(sources, recursive_to=recursive_to).items():
        name = (place / path.stem).as_posix()
        if name in images:
            raise InputError(
                f"'{images[name]}' and '{path}' would both be written as "
                f"'{name}.png'; rename one, or prepare them into two folders"
            )
        images[name] = path
    return images


def _check_destination(
    sources: Sequence[Path], images: dict[str, Path], layout: Layout, recursive: bool
) -> None:
    root = real_path(layout.root)
    for source in sources:
        if source.is_dir() and root.is_relative_to(real_path(source)):
            raise InputError(
                f"the destination '{layout.root}' lies in the source folder '{source}'; "
                "choose a folder outside it"
            )
    outputs = [root / folder / f"x{layout.scale}" for folder in IMAGE_FOLDERS]
    for path in images.values():
        parent = real_path(path).parent
        if any(parent == place or (recursive and place in parent.parents) for place in outputs):
            raise InputError(
                f"'{path}' is in a folder that this run writes to and could be overwritten; "
                "choose another destination"
            )


def _read_unfinished(path: Path) -> list[str]:
    try:
        names = read_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputError(f"'{path}' is damaged ({error}); delete it") from error
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _read_sigmas(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        return {str(name): float(sigma) for name, sigma in read_json(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' is damaged ({error}); delete the folder and prepare it again"
        ) from error
