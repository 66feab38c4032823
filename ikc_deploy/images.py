"""Image files in and out (Pillow): what a file holds as a `Picture`, and back.

A `Picture` is upright 8-bit RGB with its transparency beside it, whatever the file was:

- EXIF rotation is applied, and no EXIF is written: of the metadata only the ICC profile is kept.
- Grey stays grey: three equal channels here, one channel again in the file.
- Palettes become RGB, with alpha if a colour is transparent. CMYK becomes RGB, without its
  profile, which describes inks.
- 16-bit samples become 8-bit ones: grey is rounded, colour keeps the high byte, which is all that
  Pillow decodes and within one level of rounding.
- Animations and multi-page files are refused. A phone's JPEG with a preview or gain map behind the
  photograph (MPO) is one picture: the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ikc_deploy.errors import InputError
from ikc_deploy.files import atomic_path

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""File name endings that folders are searched for, and that can be written."""

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
_OPAQUE_SUFFIXES: Final = (".jpg", ".jpeg", ".bmp")
_QUALITY: Final = 95
# 4:4:4: halving the chroma would throw away what was just upscaled.
_JPEG_SUBSAMPLING: Final = 0


@dataclass(frozen=True, eq=False)
class Picture:
    """What an image file shows, upright."""

    rgb: NDArray[np.uint8]
    """`[H,W,3]`; three equal channels if `grey`."""
    alpha: NDArray[np.uint8] | None = None
    """Opacity `[H,W]`, 255 opaque; None if the file has none. `rgb` is not multiplied by it."""
    grey: bool = False
    """Stored in one channel."""
    icc_profile: bytes | None = None
    """The colour profile, byte for byte."""
    bits: int = 8
    """Bits of each sample in the file that it was read from."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def list_images(folder: str | PathLike[str]) -> list[Path]:
    """The image files in a folder (not below it), sorted by name.

    Raises `InputError` if the folder is missing or holds none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}'")
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"the folder '{root}' has no images ({', '.join(IMAGE_SUFFIXES)})")
    return found


def read_picture(path: str | PathLike[str]) -> Picture:
    """What the image file at `path` shows; the array is the caller's own.

    Raises `InputError` for files that are missing, unreadable or cut short, that hold several
    pictures, or whose samples have no known white (floating point, 32 bits, signed).
    """
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            _refuse_several(opened, path)
            return _decode(opened)
    except FileNotFoundError:
        raise InputError(f"there is no image at '{path}'") from None
    except UnidentifiedImageError:
        raise InputError(
            f"'{path}' cannot be read as an image: it holds no {', '.join(_FORMATS)} data"
        ) from None
    except Image.DecompressionBombError as error:
        raise InputError(f"'{path}' is too large to be read safely: {error}") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise InputError(f"'{path}' cannot be read as an image: {error}") from error


def read_rgb(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """An image file as RGB `[H,W,3]` uint8, upright (EXIF rotation applied).

    Grey and palette images become RGB; transparency is dropped; 16-bit samples keep their high
    byte, rounded. Raises `InputError` as `read_picture` does.
    """
    return read_picture(path).rgb


def check_writable(picture: Picture, path: str | PathLike[str]) -> None:
    """Raise `InputError` if no file with the suffix of `path` can hold `picture`."""
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"'{target.name}' has no image suffix that can be written; "
            f"use one of {', '.join(IMAGE_SUFFIXES)}"
        )
    if suffix in _OPAQUE_SUFFIXES and picture.alpha is not None and picture.alpha.min() < 255:
        raise InputError(f"'{target.name}' cannot hold transparency; use .png, .webp or .tif")


def write_picture(picture: Picture, path: str | PathLike[str]) -> None:
    """Write `picture`; the suffix chooses the format. Whole or not at all.

    JPEG and WebP are written lossily at quality 95. WebP has no grey: it gets three equal channels.
    Raises `InputError` if the format cannot hold the picture or the file cannot be written.
    """
    target = Path(path)
    check_writable(picture, target)
    opaque = target.suffix.lower() in _OPAQUE_SUFFIXES
    image = _encodable(picture, None if opaque else picture.alpha)
    try:
        with atomic_path(target) as temporary:
            image.save(
                temporary,
                quality=_QUALITY,
                subsampling=_JPEG_SUBSAMPLING,
                icc_profile=picture.icc_profile,
            )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{target}' cannot be written: {reason}") from error


def write_rgb(image: NDArray[np.uint8], path: str | PathLike[str]) -> None:
    """Write RGB `[H,W,3]` uint8; the suffix chooses the format. Whole or not at all."""
    write_picture(Picture(image), path)


def _refuse_several(image: ImageFile.ImageFile, path: str | PathLike[str]) -> None:
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":
        raise InputError(
            f"'{path}' holds {count} pictures (an animation or pages); "
            "save the one that you want as a file of its own"
        )


def _decode(opened: ImageFile.ImageFile) -> Picture:
    # Known only before the samples are decoded.
    rawmode = _rawmode(opened)
    bits = 16 if ";16" in rawmode else 12 if ";12" in rawmode else 8
    image = ImageOps.exif_transpose(opened)
    profile = None if image.mode == "CMYK" else image.info.get("icc_profile") or None
    if image.mode.startswith("I;16"):
        rgb, alpha = _from_deep_grey(image, bits)
        return Picture(rgb, alpha, True, profile, bits)
    if image.mode in ("I", "F"):
        raise ValueError("its samples are not 8-bit or 16-bit ones; convert it to 16 bits")
    grey = image.mode in ("1", "L", "LA", "La") or rawmode.startswith("LA")
    if not image.has_transparency_data:
        return Picture(np.array(image.convert("RGB")), None, grey, profile, bits)
    rgba = np.asarray(image.convert("RGBA"))
    return Picture(rgba[:, :, :3].copy(), rgba[:, :, 3].copy(), grey, profile, bits)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Pillow's name for how the file stores its samples, such as "RGB;16B"; "" if it has none."""
    args = image.tile[0].args if image.tile else None
    name = args[0] if isinstance(args, tuple) and args else args
    return name if isinstance(name, str) else ""


def _from_deep_grey(
    image: Image.Image, bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    samples = np.asarray(image)
    grey = np.rint(samples * (255 / (2**bits - 1))).astype(np.uint8)
    see_through = image.info.get("transparency")
    alpha = None if see_through is None else np.where(samples == see_through, 0, 255)
    return np.dstack([grey] * 3), None if alpha is None else alpha.astype(np.uint8)


def _encodable(picture: Picture, alpha: NDArray[np.uint8] | None) -> Image.Image:
    image = Image.fromarray(picture.rgb)
    if picture.grey:
        image = image.convert("L")
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image
