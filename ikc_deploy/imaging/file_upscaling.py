"""Upscaling of image files.

The networks only process opaque RGB. Everything else is handled here:

- A grey image is passed as three equal channels; the output is their luma, in one channel.
- Alpha is upscaled bicubically. Before the networks run, the colour of fully transparent pixels is
  replaced by the mean colour of visible pixels nearby, so that it cannot bleed over edges or bias
  the estimate of the blur.
- Metadata is copied and adapted to the new size. Rotation, palettes and 16-bit samples are handled
  by `ikc_deploy.imaging.reading`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.files import write_atomically
from ikc_deploy.imaging.picture import MAX_PIXELS, Picture
from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.imaging.reading import read_picture
from ikc_deploy.imaging.resize import quantize, resize_bicubic, resized
from ikc_deploy.imaging.writing import check_writable, write_picture
from ikc_deploy.kernels import Ellipse, ellipse_of_kernel
from ikc_deploy.reporting.plotting import kernels_figure, save_figure
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.upscaler import Upscaler

NonBlindUpscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""A function from an RGB image `[H,W,3]` uint8 to its SR image `[sH,sW,3]` uint8."""

KERNELS_FILE: Final = "kernels.png"
"""Name of the figure of the blur kernels in a folder of steps."""


@dataclass(frozen=True)
class ImageTask:
    """One image file to upscale."""

    source: Path
    """Image file to read."""
    target: Path
    """File to write; its suffix selects the format."""
    steps: Path | None = None
    """Folder for the images of all steps and the figure of the blur kernels; None for neither."""
    max_pixels: int | None = MAX_PIXELS
    """Maximum number of pixels of the source; None for no limit."""
    strip: bool = False
    """Whether to omit metadata, except what the colours depend on."""
    postprocessing: Postprocessing = NO_POSTPROCESSING
    """Strength, output size and preview."""
    kernel: Path | None = None
    """NumPy file for the blur kernel `[k, k]` float32 of the last step; None for none."""


@dataclass(frozen=True)
class Upscaled:
    """The result of an `ImageTask`."""

    task: ImageTask
    """The task."""
    lr: tuple[int, int]
    """Height and width of the input in pixels, after rotation."""
    sr: tuple[int, int]
    """Height and width of the output in pixels."""
    bits: int
    """Bits per sample of the input; the output has 8."""
    sigma: float | None
    """Estimated or known sigma, in pixels of the output; None if a blur kernel was given."""
    noise: float | None
    """Estimated standard deviation of the noise, in 8-bit levels; None if unknown."""
    jpeg_quality: float | None
    """Estimated JPEG quality, 100 for no compression; None if unknown."""
    timings: dict[str, float]
    """Milliseconds by stage, as in `Result.timings`, without file access."""
    not_kept: tuple[str, ...] = ()
    """Kinds of metadata that the output's format does not support."""
    ellipse: Ellipse | None = None
    """Axes and angle of the blur kernel; None if the weights estimate no direction."""


def check_bundle(bundle: Bundle) -> None:
    """Raise `InputError` if `bundle` cannot upscale image files."""
    if bundle.manifest.random_weights:
        raise InputError(
            f"'{bundle.path}' has random weights, for benchmarks only; "
            "export trained ones with: ikc-export --weights CHECKPOINT"
        )
    if bundle.manifest.io != "uint8":
        raise InputError(
            f"'{bundle.path}' takes float tensors, not 8-bit images; "
            "export it with: ikc-export --io uint8"
        )


def upscale_file(upscaler: Upscaler, task: ImageTask, sigma: float | None = None) -> Upscaled:
    """Read, upscale and write one image. Each file is written atomically.

    Args:
        upscaler: The upscaler.
        task: The image.
        sigma: Sigma of the blur in HR pixels; None to estimate the blur.

    Raises:
        InputError: The source cannot be read or is too large, or the target cannot be written. The
            message names the file.
        BackendError: The backend failed. The message names the source.
    """
    with _in_memory(task):
        picture = _read(task, upscaler.scale)
        with _naming_source(task):
            upscaled, result = upscale_picture(upscaler, picture, sigma, task.steps is not None)
        written = postprocessed(picture, upscaled, task.postprocessing)
        not_kept = write_picture(written, task.target)
        if task.steps is not None:
            _write_steps(upscaler, upscaled, result, task.steps)
        if task.kernel is not None:
            _write_kernel(result.kernel, task.kernel)
    return Upscaled(
        task,
        picture.size,
        written.size,
        picture.bits,
        float(result.sigma),
        result.noise,
        result.jpeg_quality,
        result.timings,
        not_kept,
        ellipse_of_kernel(result.kernel) if upscaler.bundle.basis.elliptic else None,
    )


def upscale_file_nonblind(task: ImageTask, scale: int, upscale: NonBlindUpscale) -> Upscaled:
    """Read, upscale and write one image with any function that upscales RGB.

    Args:
        task: The image; `task.steps` and `task.kernel` are ignored.
        scale: Scale factor of `upscale`.
        upscale: The function.

    Raises:
        InputError: As `upscale_file`.
        BackendError: `upscale` failed. The message names the source.
    """
    with _in_memory(task):
        picture = _read(task, scale)
        started = time.perf_counter()
        with _naming_source(task):
            upscaled = _enlarged(picture, upscale(_visible(picture)), scale)
        timings = {"total": 1e3 * (time.perf_counter() - started)}
        written = postprocessed(picture, upscaled, task.postprocessing)
        not_kept = write_picture(written, task.target)
    return Upscaled(
        task,
        picture.size,
        written.size,
        picture.bits,
        sigma=None,
        noise=None,
        jpeg_quality=None,
        timings=timings,
        not_kept=not_kept,
    )


def upscale_picture(
    upscaler: Upscaler, picture: Picture, sigma: float | None = None, steps: bool = False
) -> tuple[Picture, Result]:
    """Upscale the colour and the alpha channel of a picture.

    Args:
        upscaler: The upscaler.
        picture: The LR image.
        sigma: Sigma of the blur in HR pixels; None to estimate the blur.
        steps: Whether to include the images of all steps in the `Result`.

    Returns:
        The SR image, with alpha if `picture` has it, and the `Result` of the networks.

    Raises:
        IkcError: As raised by `Upscaler`.
    """
    result = upscaler(_visible(picture), sigma=sigma, steps=steps)
    return _enlarged(picture, result.image, upscaler.scale), result


def _visible(picture: Picture) -> NDArray[np.uint8]:
    return picture.rgb if picture.alpha is None else fill_hidden(picture.rgb, picture.alpha)


def _enlarged(picture: Picture, rgb: NDArray[np.uint8], scale: int) -> Picture:
    """Return the SR image with colour `rgb`, and with alpha if `picture` has it."""
    alpha = picture.alpha
    if alpha is not None:
        alpha = quantize(resize_bicubic(alpha[:, :, None], scale))[:, :, 0]
    return replace(picture, rgb=rgb, alpha=alpha, bits=8)


def postprocessed(picture: Picture, upscaled: Picture, postprocessing: Postprocessing) -> Picture:
    """Return a postprocessed SR image; the alpha channel is resized with it.

    Args:
        picture: The LR image.
        upscaled: The SR image, from `upscale_picture`.
        postprocessing: Strength, output size and preview.

    Raises:
        InputError: The output size is invalid.
    """
    rgb = postprocessing(_visible(picture), upscaled.rgb)
    alpha = upscaled.alpha
    if alpha is not None:
        alpha = resized(alpha, *rgb.shape[:2])
    return replace(upscaled, rgb=rgb, alpha=alpha)


def fill_hidden(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace the colour of fully transparent pixels by that of visible pixels nearby.

    Each gets the mean of the visible pixels in the smallest enclosing block of 2x2, 4x4, 8x8, ...
    pixels that contains any.

    Args:
        rgb: Colour `[H,W,3]`, uint8.
        alpha: Alpha `[H,W]`, uint8.

    Returns:
        A new array; `rgb` itself if all pixels or no pixels are visible.
    """
    seen = alpha[:, :, None] > 0
    if seen.all() or not seen.any():
        return rgb
    return np.where(seen, rgb, quantize(_spread(np.where(seen, rgb, 0.0), seen.astype(float))))


def _spread(total: NDArray[np.floating], count: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return `total / count`, with the mean at half the resolution where `count` is 0."""
    means = total / np.maximum(count, 1)
    if count.all():
        return means
    height, width = count.shape[:2]
    coarse = _spread(_halved(total), _halved(count)).repeat(2, axis=0).repeat(2, axis=1)
    return np.where(count > 0, means, coarse[:height, :width])


def _halved(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return sums over blocks of 2x2 pixels, with zeros beyond the edge."""
    height, width, channels = image.shape
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, channels).sum(axis=(1, 3))


@contextmanager
def _in_memory(task: ImageTask) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise InputError(
            f"'{task.source}' is too large for the memory of this machine; cut it into parts"
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
        size = task.postprocessing.output_size(*picture.size, scale)
        check_writable(picture, task.target, size)
    if task.strip:
        return replace(picture, metadata=picture.metadata.without_description())
    return picture


def _write_steps(upscaler: Upscaler, upscaled: Picture, result: Result, folder: Path) -> None:
    for step, image in enumerate(result.steps):
        write_picture(replace(upscaled, rgb=image), folder / f"step{step}.png")
    basis = upscaler.bundle.basis
    figure = kernels_figure(basis.decode(result.codes), basis.sigma_of_code(result.codes))
    save_figure(figure, folder / KERNELS_FILE)


def _write_kernel(kernel: NDArray[np.float32], path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, kernel, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
