"""Reading of an image file into a `Picture`: choice of the decoder, and error messages."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from os import PathLike, fspath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.imaging import tiff
from ikc_deploy.imaging.metadata import (
    PNG_SIGNATURE,
    Parted,
    orientation_of,
    part_jpeg,
    part_png,
    sound_profile,
)
from ikc_deploy.imaging.picture import MAX_PIXELS, Picture, check_pixels
from ikc_deploy.imaging.pillow import decode, own_limit

FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""Formats that can be read; they are recognised by content, not by file name."""


def read_picture(path: str | PathLike[str], max_pixels: int | None = MAX_PIXELS) -> Picture:
    """Read an image file; the caller owns the arrays.

    Args:
        path: The file, in one of `FORMATS`.
        max_pixels: Maximum number of pixels; None for no limit.

    Raises:
        InputError: The file is missing, unreadable or truncated; it has several images or more
            than `max_pixels` pixels; or its samples have no known white level (floating point, 32
            bits, signed).
        MissingExtraError: The file is a TIFF whose compression needs the `tiff` extra.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"expected the path of an image, got {type(path).__name__}")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise InputError(f"there is no image at '{fspath(path)}'") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{fspath(path)}' cannot be read as an image: {reason}") from error
    try:
        return _read(data, max_pixels)
    except MemoryError:
        raise
    except MissingExtraError as error:
        raise MissingExtraError(error.module, error.extra, f"'{fspath(path)}'") from error
    except InputError as error:
        raise InputError(f"'{fspath(path)}' {error}") from error
    except Exception as error:  # the decoders raise a dozen types for damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"'{fspath(path)}' cannot be read as an image: {reason}") from error


def read_rgb(path: str | PathLike[str], max_pixels: int | None = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image file as RGB, upright (EXIF rotation applied).

    Grey and palette images become RGB; transparency is dropped; 16-bit samples become 8-bit ones.

    Args:
        path: The file, in one of `FORMATS`.
        max_pixels: Maximum number of pixels; None for no limit.

    Returns:
        A new array `[H,W,3]`, uint8.

    Raises:
        InputError: As `read_picture`.
        MissingExtraError: As `read_picture`.
    """
    return read_picture(path, max_pixels).rgb


def _read(data: bytes, max_pixels: int | None) -> Picture:
    """Read the content of a file; error messages continue a sentence with the file's name."""
    if data.startswith(tiff.SIGNATURES):
        return tiff.read_tiff(data, max_pixels)
    for begins, opened in _DECODERS:
        if begins(data):
            image, parted = opened(data)
            check_pixels(*image.size, max_pixels)
            _refuse_several(image)
            return decode(image, parted)
    raise InputError(f"cannot be read as an image: its format is not one of {', '.join(FORMATS)}")


def _refuse_several(image: ImageFile.ImageFile) -> None:
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise InputError(
            f"holds {count} images (an animation); save the one that you want as a separate file"
        )


Opened = tuple[ImageFile.ImageFile, Parted]


# Pillow's classes are used directly, because Image.open() applies a limit of pixels.
def _open_png(data: bytes) -> Opened:
    parted = part_png(data)
    return PngImagePlugin.PngImageFile(BytesIO(parted.pixels)), parted


def _open_jpeg(data: bytes) -> Opened:
    parted = part_jpeg(data)
    return JpegImagePlugin.JpegImageFile(BytesIO(parted.pixels)), parted


def _open_webp(data: bytes) -> Opened:
    with own_limit():
        image = WebPImagePlugin.WebPImageFile(BytesIO(data))
    orientation = orientation_of(image.info.get("exif"))
    return image, Parted(data, orientation, sound_profile(image.info.get("icc_profile")))


def _open_gif(data: bytes) -> Opened:
    return GifImagePlugin.GifImageFile(BytesIO(data)), Parted(data)


def _open_bmp(data: bytes) -> Opened:
    return BmpImagePlugin.BmpImageFile(BytesIO(data)), Parted(data)


_DECODERS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Opened]], ...]] = (
    (lambda data: data.startswith(PNG_SIGNATURE), _open_png),
    (lambda data: data.startswith(b"\xff\xd8\xff"), _open_jpeg),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _open_webp),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), _open_gif),
    (lambda data: data.startswith(b"BM"), _open_bmp),
)
