"""TIFF: selection of the page to read, and the layouts that Pillow does not support.

Pillow (libtiff) decodes the layouts for which it has a mode. The others, and those that it
misreads, are decoded by tifffile: separate planes without compression or with alpha, 16-bit grey
with white as zero, and more than 8 bits in colour models other than grey and RGB.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.imaging.formats.pillow_decoder import decode, without_pixel_limit
from ikc_deploy.imaging.formats.sample_conversion import (
    high_byte,
    rgb_of_cmyk,
    rgb_of_lab,
    to_8_bits,
    unpremultiplied,
)
from ikc_deploy.imaging.formats.split_image import apply_orientation
from ikc_deploy.imaging.formats.tiff_fields import split_tiff
from ikc_deploy.imaging.picture import Picture, check_pixels

SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = (
    *(0, 1, 2, 3, 5),
    *(6, 8, 9),
)
"""PhotometricInterpretation."""
_PHOTOMETRIC: Final = 262
_FAX: Final = (2, 3, 4)
"""Compressions of faxes."""
_CHANNELS: Final = {
    _WHITE_IS_ZERO: 1,
    _BLACK_IS_ZERO: 1,
    _RGB: 3,
    _PALETTE: 1,
    _CMYK: 4,
    _CIELAB: 3,
    _ICCLAB: 3,
}
_PREMULTIPLIED, _STRAIGHT = 1, 2
"""ExtraSamples."""
_SEPARATE: Final = 2
_CODECS_OF_BUILDS: Final = (34925, 50000, 50001)
"""Compressions that some builds of Pillow lack: LZMA, Zstandard, WebP."""
_UNCOMPRESSED, _PACKBITS = 1, 32773
"""Compression."""
_NO_PREDICTOR: Final = 1
_UNSIGNED, _UNDEFINED = 1, 4
"""SampleFormat."""
_BYTE: Final = 8
_MAX_BITS: Final = 16
_MAX_CHANNELS: Final = 64
_MAX_PART: Final = 2**26
"""Maximum number of pixels of a tile or strip, which is allocated before its data is read."""

# tifffile logs irregularities; those that matter raise an error here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read_tiff(data: bytes, max_pixels: int | None) -> Picture:
    """Read the content of a TIFF file.

    Args:
        data: Content of the file.
        max_pixels: Maximum number of pixels; None for no limit.

    Raises:
        InputError: The file has several pages, too many pixels, or samples without a known white
            level. The message continues a sentence that begins with the name of the file.
        MissingExtraError: The compression needs imagecodecs.
        Exception: As raised by Pillow or tifffile for a damaged file.
    """
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as file:
        page = _main_page(file)
        if not _has_colour_model(page):
            page.photometric = _RGB if page.samplesperpixel >= 3 else _BLACK_IS_ZERO
        check_pixels(page.imagewidth, page.imagelength, max_pixels)
        _check_samples(page)
        split = split_tiff(data, page)
        image = _opened(split.pixels, page)
        if image is not None:
            with _codec_of_build(page):
                return decode(image, split)
        shown = _decoded(page, len(data))
    alpha = None if shown.alpha is None else apply_orientation(shown.alpha, split.orientation)
    profile = split.icc_profile if page.photometric in (0, 1, 2, 3) else None
    metadata = split.metadata.upright(split.orientation)
    rgb = apply_orientation(shown.rgb, split.orientation)
    return Picture(rgb, alpha, shown.grey, profile, shown.bits, metadata)


def _main_page(file: Any) -> Any:
    """Return the only page that is neither a thumbnail nor a mask."""
    pages = [file.pages[index] for index in range(len(file.pages))]
    if not pages:
        raise InputError("cannot be read as an image: it has no page")
    whole = [page for page in pages if not _is_thumbnail_or_mask(page)]
    if len(whole) > 1:
        raise InputError(
            f"holds {len(whole)} images (pages); save the one that you want as a separate file"
        )
    return whole[0] if whole else pages[0]


def _is_thumbnail_or_mask(page: Any) -> bool:
    """Return whether a page is a smaller version of another page, or its mask."""
    old = page.tags.get(255)
    return bool(page.subfiletype & (_REDUCED | _MASK)) or (old is not None and old.value == 2)


def _has_colour_model(page: Any) -> bool:
    """Return whether a page states its colour model, or is a fax, where white is zero."""
    return _PHOTOMETRIC in page.tags or page.compression in _FAX


def _check_samples(page: Any) -> None:
    bits, kind = page.bitspersample, page.sampleformat
    lab = page.photometric in (_CIELAB, _ICCLAB)
    if page.imagedepth > 1:
        raise InputError(f"holds a volume of {page.imagedepth} slices; save the one that you want")
    if kind not in (_UNSIGNED, _UNDEFINED) and not lab:
        words = {2: "signed integers", 3: "floating-point numbers"}.get(kind, "of unknown type")
        raise InputError(
            f"cannot be read as an image: its samples are {words} ({bits} bits), without a "
            "known white level; convert it to 16 bits"
        )
    if not isinstance(bits, int) or not 1 <= bits <= _MAX_BITS:
        raise InputError(
            f"cannot be read as an image: its samples have {bits} bits, and the maximum is 16; "
            "convert it to 16 bits"
        )


def _opened(pixels: bytes, page: Any) -> TiffImagePlugin.TiffImageFile | None:
    """Open the page in Pillow without decoding it; None if Pillow does not support its layout."""
    if _is_misread(page):
        return None
    try:
        with without_pixel_limit(), _libtiff(page.photometric == _YCBCR):
            return TiffImagePlugin.TiffImageFile(BytesIO(pixels))
    except SyntaxError:
        return None


@contextmanager
def _libtiff(uncompressed: bool) -> Iterator[None]:
    """Let libtiff decode uncompressed samples too.

    Pillow's own decoder ignores the range and the subsampling of YCbCr. Use it only within
    `without_pixel_limit`, which holds the lock.
    """
    before = TiffImagePlugin.READ_LIBTIFF
    TiffImagePlugin.READ_LIBTIFF = uncompressed
    try:
        yield
    finally:
        TiffImagePlugin.READ_LIBTIFF = before


@contextmanager
def _codec_of_build(page: Any) -> Iterator[None]:
    """Raise `MissingExtraError` if Pillow was built without the codec of a page."""
    try:
        yield
    except OSError as error:
        if page.compression not in _CODECS_OF_BUILDS:
            raise
        raise MissingExtraError("imagecodecs", "tiff", "this compression of TIFF") from error


def _is_misread(page: Any) -> bool:
    """Return whether Pillow misreads the layout of a page.

    Found by writing every layout (tests/imaging/test_tiff.py): Pillow then returned noise, wrong
    opacity or negatives.
    """
    if not _has_colour_model(page):
        return True
    other_codec = page.compression in _CODECS_OF_BUILDS and page.photometric != _YCBCR
    if other_codec and find_spec("imagecodecs") is not None:
        return True
    more = page.samplesperpixel > _CHANNELS.get(page.photometric, page.samplesperpixel)
    return (
        (page.planarconfig == _SEPARATE and (page.compression == _UNCOMPRESSED or more))
        or (page.photometric == _WHITE_IS_ZERO and page.bitspersample > _BYTE)
        or (page.parent.is_bigtiff and page.parent.byteorder == ">")
        or (page.compression == _PACKBITS and page.predictor != _NO_PREDICTOR)
    )


def _decoded(page: Any, file_bytes: int) -> Picture:
    """Decode a page with tifffile, in the orientation of the file and without its profile."""
    channels = _CHANNELS.get(page.photometric)
    if channels is None or not channels <= page.samplesperpixel <= _MAX_CHANNELS:
        raise InputError(
            f"cannot be read as an image: {page.samplesperpixel} samples per pixel with "
            f"photometric interpretation {int(page.photometric)} are not supported; save it as RGB"
        )
    _check_parts(page, file_bytes)
    samples = _samples(page)
    bits, white = page.bitspersample, 2**page.bitspersample - 1
    colour, alpha = samples[:, :, :channels], None
    extra = [int(kind) for kind in page.extrasamples]
    if extra and extra[0] in (_PREMULTIPLIED, _STRAIGHT) and samples.shape[2] > channels:
        opacity = samples[:, :, channels]
        alpha = to_8_bits(opacity, white)
        if extra[0] == _PREMULTIPLIED and page.photometric in (_BLACK_IS_ZERO, _RGB):
            colour = unpremultiplied(colour, opacity, white)
    grey = channels == 1 and page.photometric != _PALETTE
    return Picture(_rgb(page, colour, bits), alpha, grey, None, max(8, bits))


def _rgb(page: Any, colour: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Convert samples `[H,W,C]` to 8-bit RGB `[H,W,3]`."""
    kind, white = page.photometric, 2**bits - 1
    if kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        levels = to_8_bits(white - colour if kind == _WHITE_IS_ZERO else colour, white)
        return np.repeat(levels, 3, axis=2)
    if kind == _PALETTE:
        table = np.asarray(page.colormap).T
        # Some writers fill the low bytes only.
        table = table if table.max() < 256 else table >> 8
        return table.astype(np.uint8)[colour[:, :, 0]]
    if kind == _CMYK:
        return rgb_of_cmyk(high_byte(colour, bits))
    if kind == _RGB:
        return high_byte(colour, bits)
    if bits not in (8, 16):
        raise InputError(f"cannot be read as an image: it is {bits}-bit CIELAB; save it as RGB")
    lab = high_byte(colour.view(f"u{bits // 8}"), bits)
    if kind == _ICCLAB:
        lab[:, :, 1:] ^= 128  # ICCLAB has a and b with an offset of 128, CIELAB signed.
    return rgb_of_lab(lab)


def _samples(page: Any) -> NDArray[Any]:
    """Return samples `[H,W,C]` in native byte order."""
    try:
        stored = page.asarray(maxworkers=1)
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise MissingExtraError("imagecodecs", "tiff", "this compression of TIFF") from error
        raise
    height, width, count = page.imagelength, page.imagewidth, page.samplesperpixel
    if page.planarconfig == _SEPARATE and count > 1:
        stored = np.moveaxis(stored.reshape(count, height, width), 0, 2)
    samples = stored.reshape(height, width, count)
    if samples.dtype == bool:
        return samples.astype(np.uint8)
    return samples.astype(samples.dtype.newbyteorder("="), copy=False)


def _check_parts(page: Any, file_bytes: int) -> None:
    """Raise `InputError` for missing or truncated parts, which tifffile would fill with zeros."""
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not parts or len(parts) < int(np.prod(page.chunked)):
        raise InputError(
            "cannot be read as an image: it is cut short, parts of the image are missing"
        )
    if any(count <= 0 or at <= 0 or at + count > file_bytes for at, count in parts):
        raise InputError("cannot be read as an image: it is cut short, a part lies beyond the end")
    if int(np.prod(page.chunks)) > _MAX_PART * page.samplesperpixel:
        raise InputError(
            f"cannot be read as an image: its parts are too large, {tuple(page.chunks)}"
        )
    if page.compression == _UNCOMPRESSED:
        held = 8 * sum(page.databytecounts)
        if held < page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample:
            raise InputError(
                "cannot be read as an image: it is cut short, with too few samples for its size"
            )
