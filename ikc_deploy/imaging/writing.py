"""Writing of a `Picture` to an image file, and the limits of each format."""

from __future__ import annotations

import io
import mimetypes
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.errors import InputError
from ikc_deploy.files import atomic_path
from ikc_deploy.imaging.formats.metadata_writing import encode_metadata
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.suffixes import WRITABLE_SUFFIXES

_OPAQUE_SUFFIXES: Final = (".jpg", ".jpeg", ".bmp")
_QUALITY: Final = 95
# 4:4:4: halving the chroma would discard detail that was just upscaled.
_JPEG_SUBSAMPLING: Final = 0

_LONGEST_SIDES: Final = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}
"""Maximum side in pixels that the library of a format encodes; about 2**31 for the others."""
_BMP_BYTES: Final = 2**32 - 1
_TIFF_BYTES: Final = 2**32 - 2**20
"""Maximum size of a TIFF with 32-bit offsets, less room for its fields; BigTIFF is used beyond."""


def has_unwritable_suffix(path: str | PathLike[str]) -> bool:
    """Return whether `path` has a known suffix of files that are not written: `.gif`, `.zip`."""
    suffix = Path(path).suffix.lower()
    if not suffix or suffix in WRITABLE_SUFFIXES:
        return False
    return suffix in Image.registered_extensions() or any(mimetypes.guess_type(f"name{suffix}"))


def check_size(path: str | PathLike[str], height: int, width: int) -> None:
    """Raise `InputError` if the format of `path` cannot hold an image of `height` x `width`."""
    target = Path(path)
    suffix = target.suffix.lower()
    longest = _LONGEST_SIDES.get(suffix)
    if longest is not None and max(height, width) > longest:
        raise InputError(
            f"'{target.name}' would have {width}x{height} pixels, but {suffix} files are limited "
            f"to {longest} pixels per side; use .png or .tif, or cut the image into parts"
        )
    if suffix == ".bmp" and height * (4 * width) >= _BMP_BYTES:
        raise InputError(
            f"'{target.name}' would have {width}x{height} pixels, but .bmp files are limited to "
            "4 GiB; use .png or .tif"
        )


def check_writable(
    picture: Picture, path: str | PathLike[str], size: tuple[int, int] | None = None
) -> None:
    """Check that a format can hold an image after upscaling.

    Args:
        picture: The image before upscaling.
        path: The file to write; its suffix selects the format.
        size: Height and width after upscaling; None for those of `picture`.

    Raises:
        InputError: The suffix is unknown, or the format does not support this size or opacity.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise InputError(
            f"invalid image suffix in '{target.name}': use one of {', '.join(WRITABLE_SUFFIXES)}"
        )
    if suffix in _OPAQUE_SUFFIXES and picture.alpha is not None and picture.alpha.min() < 255:
        raise InputError(f"'{target.name}' cannot hold transparency; use .png, .webp or .tif")
    check_size(target, *(size or picture.size))


def write_picture(picture: Picture, path: str | PathLike[str]) -> tuple[str, ...]:
    """Write an image file, completely or not at all.

    JPEG and WebP are written lossily at quality 95. WebP has no grey format: a grey image is
    written as three equal channels. Metadata is adapted to the image: it has orientation 1, the
    size of the image and no thumbnail.

    Args:
        picture: The image.
        path: The file to write; its suffix selects the format. Missing folders are created.

    Returns:
        The metadata that the format cannot hold, a name for each kind.

    Raises:
        InputError: The arrays are not RGB `[H,W,3]` and opacity `[H,W]` of uint8, the format cannot
            hold the image, or the file cannot be written.
    """
    target = Path(path)
    _check_arrays(picture)
    check_writable(picture, target)
    suffix = target.suffix.lower()
    opaque = suffix in _OPAQUE_SUFFIXES
    image = _encodable(picture, None if opaque else picture.alpha)
    options: dict[str, Any] = {"quality": _QUALITY, "subsampling": _JPEG_SUBSAMPLING}
    if suffix in (".tif", ".tiff"):
        options = {"big_tiff": picture.rgb.size // 3 * 4 > _TIFF_BYTES}
    metadata = encode_metadata(picture, suffix)
    try:
        with atomic_path(target) as temporary:
            with _open_checked(temporary) as file:
                kind = Image.registered_extensions()[suffix]
                image.save(file, kind, **options, **metadata.options)
            metadata.complete(Path(temporary))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{target}' cannot be written: {reason}") from error
    return tuple(metadata.lost)


class _CheckedFile(io.FileIO):
    """A file without a descriptor for others.

    Pillow writes to a descriptor itself and takes a write that is cut off by a full disk for a
    complete one. Without one, it writes through Python, which raises.
    """

    def fileno(self) -> int:
        """Refuse."""
        raise io.UnsupportedOperation("fileno")


def _open_checked(path: Path) -> io.BufferedRandom:
    return io.BufferedRandom(_CheckedFile(path, "w+"))


def write_rgb(image: NDArray[np.uint8], path: str | PathLike[str]) -> None:
    """Write an RGB image file, completely or not at all.

    Args:
        image: RGB `[H,W,3]`, uint8.
        path: The file to write; its suffix selects the format.

    Raises:
        InputError: As `write_picture`.
    """
    write_picture(Picture(image), path)


def _check_arrays(picture: Picture) -> None:
    rgb, alpha = picture.rgb, picture.alpha
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3:
        what = f"{rgb.dtype} {list(rgb.shape)}" if isinstance(rgb, np.ndarray) else type(rgb)
        raise InputError(f"expected an image as a numpy array [H,W,3] of uint8, got {what}")
    if rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f"expected an image [H,W,3] with pixels, got shape {list(rgb.shape)}")
    if alpha is not None and (alpha.dtype != np.uint8 or alpha.shape != rgb.shape[:2]):
        raise InputError(
            f"expected opacity as uint8 {list(rgb.shape[:2])}, "
            f"got {alpha.dtype} {list(alpha.shape)}"
        )


def _encodable(picture: Picture, alpha: NDArray[np.uint8] | None) -> Image.Image:
    image = Image.fromarray(picture.rgb)
    if picture.grey:
        image = image.convert("L")
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image
