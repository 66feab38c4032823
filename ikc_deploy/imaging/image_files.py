"""Picture files to upscaled picture files: which output each gets, and what it keeps.

The network restores colour and sees opaque RGB. The rest of a picture goes round it:

- Grey goes in as three equal channels and comes out as their luma, in one channel.
- Opacity is upscaled bicubically. Colour that nobody sees (under opacity 0) is replaced, before
  the network, by the mean colour of the visible pixels nearby, so that it can neither bleed over
  an edge nor mislead the estimate of the blur.
- The ICC profile is copied. Rotation, palettes and 16-bit samples are what
`ikc_deploy.imaging.image_io`
  makes of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.files import check_file
from ikc_deploy.imaging.degrade import quantize
from ikc_deploy.imaging.image_io import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Picture,
    check_writable,
    list_images,
    names_other_file,
    read_picture,
    write_picture,
)
from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.reporting.plotting import kernels_figure, save_figure
from ikc_deploy.runtime.upscaler import Result, Upscaler

NonBlindUpscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""RGB `[H,W,3]` to its SR image `[sH,sW,3]`."""

KERNELS_FILE: Final = "kernels.png"


@dataclass(frozen=True)
class ImageTask:
    """One picture to upscale."""

    source: Path
    target: Path
    """The file to write; its suffix chooses the format."""
    steps: Path | None = None
    """Folder for the image of every step and the figure of the kernels; None for neither."""
    max_pixels: int | None = MAX_PIXELS
    """Of the largest source that is read; None for any."""


@dataclass(frozen=True)
class Upscaled:
    """What became of a job."""

    task: ImageTask
    lr: tuple[int, int]
    """Height and width of the input, upright."""
    sr: tuple[int, int]
    """Height and width of the output."""
    bits: int
    """Bits of each sample of the input; the output has 8."""
    sigma: float | None
    """The estimated (or given) blur, in pixels of the output; None under a given kernel."""
    noise: float | None
    """Standard deviation of the noise that was read in it, in 8-bit levels; None if not known."""
    jpeg_quality: float | None
    """Quality of JPEG compression that was read in it, 100 for none; None if not known."""
    timings: dict[str, float]
    """Milliseconds, as in `Result.timings`; reading and writing files not included."""


def plan_tasks(
    inputs: Sequence[Path],
    out: Path,
    steps: Path | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> list[ImageTask]:
    """The jobs for image files and folders of images (not below them), in order.

    `out` is the output file if there is one image and `out` has an image suffix; else it is a
    folder, in which every output has its input's name (ending in .png where that format cannot be
    written). The same file given twice is one job. With `steps`, each job gets a folder below it,
    named as the input without suffix.

    Reads no image and writes nothing. Raises `InputError` for inputs that are missing or hold no
    image, for two that would write one output, for an output that would overwrite an input, and
    for one that cannot be written: a format that is not known, a name that is too long.
    """
    sources = _sources(inputs)
    targets = _targets(sources, out)
    folders = [steps and steps / source.stem for source in sources]
    _refuse_shared(sources, targets)
    _refuse_shared(sources, [folder for folder in folders if folder is not None])
    given = {source.resolve(): source for source in sources}
    for target, folder in zip(targets, folders, strict=True):
        overwritten = given.get(target.resolve())
        if overwritten is None and folder is not None:
            inside = (path for real, path in given.items() if real.parent == folder.resolve())
            overwritten = next(inside, None)
        if overwritten is not None:
            raise InputError(f"'{overwritten}' would be overwritten; choose another output folder")
    for path in (*targets, *(folder / KERNELS_FILE for folder in folders if folder is not None)):
        check_file(path)
    jobs = zip(sources, targets, folders, strict=True)
    return [ImageTask(*task, max_pixels=max_pixels) for task in jobs]


def check_bundle(bundle: Bundle) -> None:
    """Raise `InputError` if `bundle` cannot be used on pictures, and say which one can."""
    if bundle.manifest.random_weights:
        raise InputError(
            f"'{bundle.path}' holds random weights, for benches; "
            "export trained ones with: ikc-export --weights CHECKPOINT"
        )
    if bundle.manifest.io != "uint8":
        raise InputError(
            f"'{bundle.path}' takes float tensors, not 8-bit pictures; "
            "export it with: ikc-export --io uint8"
        )


def upscale_file(upscaler: Upscaler, task: ImageTask, sigma: float | None = None) -> Upscaled:
    """Read, upscale and write one picture; files are written whole or not at all.

    Raises `InputError` or `BackendError`, naming the file, if any of the three fails.
    """
    with _in_memory(task):
        picture = _read(task, upscaler.scale)
        with _naming_source(task):
            upscaled, result = upscale_picture(upscaler, picture, sigma, task.steps is not None)
        write_picture(upscaled, task.target)
        if task.steps is not None:
            _write_steps(upscaler, upscaled, result, task.steps)
    return Upscaled(
        task,
        picture.size,
        upscaled.size,
        picture.bits,
        float(result.sigma),
        result.noise,
        result.jpeg_quality,
        result.timings,
    )


def upscale_file_nonblind(task: ImageTask, scale: int, upscale: NonBlindUpscale) -> Upscaled:
    """The same with any function that restores colour."""
    with _in_memory(task):
        picture = _read(task, scale)
        started = time.perf_counter()
        with _naming_source(task):
            upscaled = upscale_picture_nonblind(picture, scale, upscale)
        timings = {"total": 1e3 * (time.perf_counter() - started)}
        write_picture(upscaled, task.target)
    return Upscaled(task, picture.size, upscaled.size, picture.bits, None, None, None, timings)


def upscale_picture(
    upscaler: Upscaler, picture: Picture, sigma: float | None = None, steps: bool = False
) -> tuple[Picture, Result]:
    """`picture` upscaled, and the network's own result, which has no alpha.

    The blur is estimated unless `sigma` (HR pixels) gives it; with `steps`, the result has every
    step's image.
    Raises what `Upscaler` raises.
    """
    results: list[Result] = []

    def restore(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        results.append(upscaler(rgb, sigma=sigma, steps=steps))
        image: NDArray[np.uint8] = results[0].image
        return image

    return upscale_picture_nonblind(picture, upscaler.scale, restore), results[0]


def upscale_picture_nonblind(picture: Picture, scale: int, upscale: NonBlindUpscale) -> Picture:
    """`picture` with its colour restored and its opacity upscaled."""
    rgb, alpha = picture.rgb, picture.alpha
    if alpha is not None:
        rgb = fill_hidden(rgb, alpha)
        alpha = quantize(resize_bicubic(alpha[:, :, None], scale))[:, :, 0]
    return replace(picture, rgb=upscale(rgb), alpha=alpha, bits=8)


def fill_hidden(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`rgb` `[H,W,3]` with new colour where `alpha` `[H,W]` is 0; as it is if nothing is visible.

    A hidden pixel gets the mean of the visible ones in the smallest block of 2x2, 4x4, 8x8, ...
    pixels around it that has any.
    """
    seen = alpha[:, :, None] > 0
    if seen.all() or not seen.any():
        return rgb
    return np.where(seen, rgb, quantize(_spread(np.where(seen, rgb, 0.0), seen.astype(float))))


def _spread(total: NDArray[np.floating], count: NDArray[np.floating]) -> NDArray[np.floating]:
    """Means `total / count`; where `count` is 0, those of the same place at half the resolution."""
    means = total / np.maximum(count, 1)
    if count.all():
        return means
    height, width = count.shape[:2]
    coarse = _spread(_halved(total), _halved(count)).repeat(2, axis=0).repeat(2, axis=1)
    return np.where(count > 0, means, coarse[:height, :width])


def _halved(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sums over blocks of 2x2 pixels; zeros beyond the edge."""
    height, width, channels = image.shape
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, channels).sum(axis=(1, 3))


@contextmanager
def _in_memory(task: ImageTask) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise InputError(
            f"'{task.source}' is too large for this machine's memory; cut it into parts"
        ) from error


@contextmanager
def _naming_source(task: ImageTask) -> Iterator[None]:
    try:
        yield
    except (InputError, BackendError) as error:
        raise type(error)(f"'{task.source}': {error}") from error


def _read(task: ImageTask, scale: int) -> Picture:
    picture = read_picture(task.source, task.max_pixels)
    with _naming_source(task):
        check_writable(picture, task.target, scale)
    return picture


def _write_steps(upscaler: Upscaler, upscaled: Picture, result: Result, folder: Path) -> None:
    for step, image in enumerate(result.steps):
        write_picture(replace(upscaled, rgb=image), folder / f"step{step}.png")
    basis = upscaler.bundle.basis
    figure = kernels_figure(basis.decode(result.codes), basis.sigma_of_code(result.codes))
    save_figure(figure, folder / KERNELS_FILE)


def _sources(inputs: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in inputs:
        if not path.exists():
            raise InputError(f"there is no image or folder '{path}'")
        for source in list_images(path) if path.is_dir() else [path]:
            found.setdefault(source.absolute(), source)
    return list(found.values())


def _targets(sources: Sequence[Path], out: Path) -> list[Path]:
    if out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir():
        if len(sources) > 1:
            raise InputError(
                f"'{out}' is the name of one image, but there are {len(sources)} to write; "
                "name a folder"
            )
        return [out]
    if not out.is_dir() and names_no_folder(out, sources):
        raise InputError(
            f"'{out}' ends in '{out.suffix}', which is not written; give a file ending in "
            f"{', '.join(IMAGE_SUFFIXES)}, or make the folder '{out}' first if it is to be one"
        )
    if out.exists() and not out.is_dir():
        raise InputError(
            f"'{out}' is a file; name a folder, or a file ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return [out / _output_name(source) for source in sources]


def names_no_folder(out: Path, sources: Sequence[Path]) -> bool:
    """Whether an output that is not there means a file that cannot be written.

    Of a single picture, any suffix does; of several, one that files are known to have.
    """
    if out.exists():
        return False
    return names_other_file(out) or (len(sources) == 1 and _ends_in_letters(out))


def _ends_in_letters(path: Path) -> bool:
    """Whether a name ends as files do: `a.jpgg`, and not `run.2`."""
    return path.suffix[1:2].isalpha()


def _output_name(source: Path) -> str:
    writable = source.suffix.lower() in IMAGE_SUFFIXES
    return source.name if writable else f"{source.stem}.png"


def _refuse_shared(sources: Sequence[Path], places: Sequence[Path]) -> None:
    owners: dict[Path, Path] = {}
    for source, place in zip(sources, places, strict=False):
        owner = owners.setdefault(place, source)
        if owner != source:
            raise InputError(
                f"'{owner}' and '{source}' would both be written to '{place}'; "
                "rename one, or upscale them into different folders"
            )
