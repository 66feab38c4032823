"""Reading of an image file into a `Picture`: upright 8-bit RGB with separate opacity.

- EXIF rotation is applied. The ICC profile and all `Metadata` that the written format holds are
  kept, with orientation 1, the new size and no thumbnail. Damaged metadata does not prevent
  reading: it is removed before the pixels are decoded.
- Grey images stay grey: three equal channels in the `Picture`, one channel in the file.
- Palettes become RGB, with alpha if a colour is transparent. CMYK and CIELAB become RGB, without
  their profile, which describes other values.
- 16-bit samples become 8-bit samples. Grey is rounded. Colour keeps the high byte, which is all
  that Pillow decodes and within one level of rounding.
- Animations and files of several pages are rejected. Thumbnails and masks are not counted as
  pages. In a phone's JPEG with a preview or gain map behind the photograph (MPO), the photograph
  is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from os import PathLike, fspath
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    features,
)

from ikc_deploy.errors import InputError, MissingExtraError, needs_extra
from ikc_deploy.imaging.formats import tiff
from ikc_deploy.imaging.formats.colour_chunks import nclx_chunk
from ikc_deploy.imaging.formats.exif import strip_exif_prefix
from ikc_deploy.imaging.formats.jpeg_segments import split_jpeg
from ikc_deploy.imaging.formats.pillow_decoder import decode, without_pixel_limit
from ikc_deploy.imaging.formats.png_chunks import PNG_SIGNATURE, count_images, split_png
from ikc_deploy.imaging.formats.split_image import SplitImage, orientation_of, usable_profile
from ikc_deploy.imaging.picture import MAX_PIXELS, Density, Metadata, Picture, check_pixels

FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIC")
"""Formats that can be read; they are recognised by content, not by file name."""

_BMP_HEADER_WITH_OPACITY: Final = 56
"""Size of the first header of BMP that has a mask of the bits for opacity."""
_BMP_BITFIELDS: Final = 3
"""Compression of a BMP whose header has masks of the bits of each channel."""

_HEIF_HEADER: Final = 2**16
"""Bytes in which the properties of an AVIF or HEIC are searched."""

_HEAD: Final = 4096
"""Bytes from which the format is recognised."""
_BYTES_PER_PIXEL: Final = 16
"""Upper limit of the encoded bytes of a pixel: four samples of 32 bits."""
_MAX_METADATA: Final = 2**28
"""Upper limit of the bytes of a file besides its pixels."""


def read_picture(path: str | PathLike[str], max_pixels: int | None = MAX_PIXELS) -> Picture:
    """Read an image file; the caller owns the arrays.

    Args:
        path: The file, in one of `FORMATS`.
        max_pixels: Maximum number of pixels; None for no limit.

    Raises:
        InputError: The file is missing, unreadable or truncated; it has several images or more
            than `max_pixels` pixels; or its samples have no known white level (floating point, 32
            bits, signed).
        MissingExtraError: The file is a TIFF whose compression needs the `tiff` extra, or a HEIC
            and the `heif` extra is not installed.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"expected the path of an image, got {type(path).__name__}")
    try:
        with open(path, "rb") as file:
            data = _content(file, max_pixels)
    except InputError as error:
        raise InputError(f"'{fspath(path)}' {error}") from error
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
        raise InputError(
            f"'{fspath(path)}' cannot be read as an image: it is damaged, cut short or of an "
            f"unsupported kind ({reason})"
        ) from error


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


def _content(file: BinaryIO, max_pixels: int | None) -> bytes:
    """Return the content of a file that begins like an image; other files are not read.

    Devices have no end, and a file with the wrong name may be larger than the memory.
    """
    head = file.read(_HEAD)
    if not head:
        raise InputError("cannot be read as an image: the file is empty")
    if not (head.startswith(tiff.SIGNATURES) or any(begins(head) for begins, _ in _DECODERS)):
        raise InputError(
            f"cannot be read as an image: its format is not one of {', '.join(FORMATS)}; "
            "convert it to PNG or TIFF"
        )
    if max_pixels is None:
        return head + file.read()
    most = _MAX_METADATA + _BYTES_PER_PIXEL * max_pixels
    data = head + file.read(most)
    if len(data) > most:
        raise InputError(
            f"cannot be read as an image: it has more than {most / 2**20:.0f} MiB, more than "
            f"{max_pixels} pixels need; raise the maximum number of pixels (--max-pixels)"
        )
    return data


def _read(data: bytes, max_pixels: int | None) -> Picture:
    """Read the content of a file; error messages continue a sentence with the file's name."""
    if data.startswith(tiff.SIGNATURES):
        return tiff.read_tiff(data, max_pixels)
    for begins, opened in _DECODERS:
        if begins(data):
            image, split = opened(data)
            check_pixels(*image.size, max_pixels)
            _refuse_several(getattr(image, "n_frames", 1))
            return decode(image, split)
    raise AssertionError("the content was checked when it was read")


def _refuse_several(count: int) -> None:
    if count > 1:
        raise InputError(
            f"holds {count} images (an animation or a sequence); "
            "save the one that you want as a separate file"
        )


Opened = tuple[ImageFile.ImageFile, SplitImage]


# Pillow's classes are used directly, because Image.open() applies a limit of pixels.
def _open_png(data: bytes) -> Opened:
    _refuse_several(count_images(data))
    split = split_png(data)
    return PngImagePlugin.PngImageFile(BytesIO(split.pixels)), split


def _open_jpeg(data: bytes) -> Opened:
    split = split_jpeg(data)
    return JpegImagePlugin.JpegImageFile(BytesIO(split.pixels)), split


def _open_webp(data: bytes) -> Opened:
    with without_pixel_limit():
        image = WebPImagePlugin.WebPImageFile(BytesIO(data))
    return image, _split_by_pillow(image, data)


def _open_gif(data: bytes) -> Opened:
    image = GifImagePlugin.GifImageFile(BytesIO(data))
    return image, _split_by_pillow(image, data)


def _open_bmp(data: bytes) -> Opened:
    image = BmpImagePlugin.BmpImageFile(BytesIO(data))
    if image.mode == "RGB" and _has_bmp_opacity(data):
        raise InputError("is a BMP with a bit of transparency per pixel; convert it to PNG")
    return image, _split_by_pillow(image, data)


def _has_bmp_opacity(data: bytes) -> bool:
    """Return whether a BMP of 16 bits per pixel has bits for opacity, which Pillow ignores."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header < _BMP_HEADER_WITH_OPACITY:
        return False
    bits, compression = struct.unpack_from("<HI", data, 28)
    (mask,) = struct.unpack_from("<I", data, 66)
    return bool(bits == 16 and compression == _BMP_BITFIELDS and mask)


def _open_heif(data: bytes) -> Opened:
    """Open an AVIF with Pillow, or a HEIC with pillow-heif."""
    brands = data[8 : min(64, int.from_bytes(data[:4], "big"))]
    if b"avif" in brands or b"avis" in brands:
        if not features.check("avif"):
            raise InputError(
                "is an AVIF, which this build of Pillow does not read; "
                "install pillow 11.3 or newer from PyPI, or convert the image to PNG"
            )
        from PIL.AvifImagePlugin import AvifImageFile

        avif = AvifImageFile(BytesIO(data))
        return avif, _split_by_pillow(avif, data)
    with needs_extra("heif", "a HEIC"):
        from pillow_heif.as_plugin import HeifImageFile
    # libheif turns the pixels, and pillow-heif sets the orientation in EXIF to 1.
    with without_pixel_limit():
        heic: ImageFile.ImageFile = cast(Any, HeifImageFile)(BytesIO(data))
    return heic, _split_by_pillow(heic, data)


def _split_by_pillow(image: ImageFile.ImageFile, data: bytes) -> SplitImage:
    """Return the metadata that Pillow has read from a file whose pixels do not depend on it."""
    info = image.info
    exif, xmp = strip_exif_prefix(info.get("exif")), info.get("xmp")
    comment, dpi = info.get("comment"), info.get("dpi")
    profile = usable_profile(info.get("icc_profile"))
    sides = dpi if isinstance(dpi, tuple) and len(dpi) == 2 else (0, 0)
    # HEIC and AVIF without a profile state the codes of PNG's chunk cICP.
    colours = () if profile or data[4:8] != b"ftyp" else nclx_chunk(data)
    metadata = Metadata(
        exif=exif,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        comments=(comment,) if isinstance(comment, bytes) and comment else (),
        colour_chunks=colours,
        density=Density(float(sides[0]), float(sides[1])) if min(sides) > 0 else None,
    )
    return SplitImage(data, orientation_of(exif), profile, metadata, _heif_bits(data))


def _heif_bits(data: bytes) -> int:
    """Return the bits per sample of an AVIF or HEIC (box pixi); 8 for other files.

    Both decoders convert more bits to 8 without stating it.
    """
    found = data.find(b"pixi", 0, _HEIF_HEADER) if data[4:8] == b"ftyp" else -1
    if found < 0:
        return 8
    count = data[found + 8 : found + 9]  # after the box's version and flags
    depths = data[found + 9 : found + 9 + int.from_bytes(count)]
    return max((8, *(depth for depth in depths if depth <= 16)))


_HEIF_BRANDS: Final = (
    *(b"avif", b"avis", b"mif1", b"msf1", b"miaf"),
    *(b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"),
)


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


_DECODERS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Opened]], ...]] = (
    (lambda data: data.startswith(PNG_SIGNATURE), _open_png),
    (lambda data: data.startswith(b"\xff\xd8\xff"), _open_jpeg),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _open_webp),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), _open_gif),
    (lambda data: data.startswith(b"BM"), _open_bmp),
    (_is_heif, _open_heif),
)
