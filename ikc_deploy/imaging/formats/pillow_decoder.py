"""Decoding of an image that Pillow has opened to a `Picture`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.formats.jpeg_segments import complete_jpeg
from ikc_deploy.imaging.formats.png_chunks import check_rows
from ikc_deploy.imaging.formats.sample_conversion import to_8_bits
from ikc_deploy.imaging.formats.split_image import SplitImage, apply_orientation
from ikc_deploy.imaging.picture import Picture

_LIMIT: Final = Lock()
_SHALLOW_GREY: Final = {"L;2": 85, "L;4": 17}
"""Factors to 8 bits of Pillow's storage formats of grey."""
_DEEP_COLOUR: Final = "RGB;16B"
_OTHER_COLOURS: Final = ("CMYK", "LAB")
"""Modes that are converted to RGB, after which their ICC profile no longer applies."""


@contextmanager
def without_pixel_limit() -> Iterator[None]:
    """Disable Pillow's process-wide limit of pixels while a header is read."""
    with _LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def decode(image: ImageFile.ImageFile, split: SplitImage) -> Picture:
    """Decode the pixels of `image` to a `Picture`; raise Pillow's exceptions for damaged ones."""
    if image.format == "JPEG":
        image = JpegImageFile(BytesIO(complete_jpeg(split.pixels)))
    # Pillow discards the raw mode when it decodes the samples.
    rawmode = _rawmode(image)
    bits = _bits(rawmode)
    key: Any = image.info.get("transparency")
    if rawmode in _SHALLOW_GREY and isinstance(key, int):
        # Pillow scales the samples to 8 bits, but not the transparent one.
        image.info["transparency"] = min(key * _SHALLOW_GREY[rawmode], 255)
    deep_key = rawmode == _DEEP_COLOUR and isinstance(key, tuple)
    if deep_key:
        del image.info["transparency"]
    image.load()
    if image.format == "PNG" and (image.info.get("interlace") or _ends_in_zeros(image)):
        check_rows(split.pixels)
    rgb, alpha = _channels(image, bits)
    if deep_key:
        alpha = _deep_opacity(rgb, key, split.pixels)
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")
    grey = grey or rawmode == "LA" or rawmode.startswith("LA;")
    return Picture(
        apply_orientation(rgb, split.orientation),
        None if alpha is None else apply_orientation(alpha, split.orientation),
        grey,
        None if image.mode in _OTHER_COLOURS else split.icc_profile,
        max(bits, split.bits),
        split.metadata.upright(split.orientation),
    )


def _channels(image: Image.Image, bits: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return RGB `[H,W,3]` and alpha `[H,W]` in the orientation of the file."""
    if image.mode.startswith("I;16"):
        return _from_deep_grey(image, bits)
    if image.mode in ("I", "F"):
        raise InputError("has samples with neither 8 nor 16 bits; convert it to 16 bits")
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), None
    rgba = np.asarray(image.convert("RGBA"))
    return rgba[:, :, :3].copy(), rgba[:, :, 3].copy()


def _ends_in_zeros(image: Image.Image) -> bool:
    """Return whether the last row is zero, as missing rows are."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return not np.asarray(last).any()


def _bits(rawmode: str) -> int:
    """Return the bits per sample of a storage format, at least 8."""
    if rawmode.startswith("BGR;"):  # 16 bits per pixel
        return 8
    return 16 if ";16" in rawmode else 12 if ";12" in rawmode else 8


def _deep_opacity(
    high: NDArray[np.uint8], key: tuple[int, int, int], pixels: bytes
) -> NDArray[np.uint8]:
    """Return the opacity `[H,W]` of a PNG of 16-bit colour whose transparent colour is `key`.

    Pillow decodes the high bytes only, `high` `[H,W,3]`, which other colours share.
    """
    image = PngImagePlugin.PngImageFile(BytesIO(pixels))
    tiles: Any = [(*tile[:3], "RGB;16L") for tile in image.tile]
    image.tile = tiles
    image.info.pop("transparency")
    samples = high.astype(np.uint16) << 8 | np.asarray(image)
    return np.where((samples == key).all(axis=2), 0, 255).astype(np.uint8)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of the storage format of samples, such as "RGB;16B"; "" if unknown."""
    # By position: tiles are plain tuples before Pillow 11.
    args: Any = image.tile[0][3] if image.tile else None
    name = args[0] if isinstance(args, tuple) and args else args
    return name if isinstance(name, str) else ""


def _from_deep_grey(
    image: Image.Image, bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    samples = np.asarray(image)
    see_through = image.info.get("transparency")
    alpha = None
    if see_through is not None:
        alpha = np.where(samples == see_through, 0, 255).astype(np.uint8)
    return np.repeat(to_8_bits(samples, 2**bits - 1)[:, :, None], 3, axis=2), alpha
