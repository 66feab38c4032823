"""Image files in and out (Pillow): any common still image to RGB uint8, and back."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ikc_deploy.errors import InputError
from ikc_deploy.files import atomic_path

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""File name endings that folders are searched for."""


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


def read_rgb(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """An image file as RGB `[H,W,3]` uint8, upright (EXIF rotation applied).

    Grey and palette images become RGB; transparency is dropped; 16-bit samples keep their high
    byte, rounded. Raises `InputError` for files that are missing, unreadable or cut short.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
                return _grey16_to_rgb(np.asarray(image))
            return np.array(image.convert("RGBA" if _has_alpha(image) else "RGB"))[:, :, :3]
    except FileNotFoundError:
        raise InputError(f"there is no image at '{path}'") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"'{path}' cannot be read as an image: {error}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"'{path}' is too large to be read safely: {error}") from error


def write_rgb(image: NDArray[np.uint8], path: str | PathLike[str]) -> None:
    """Write RGB `[H,W,3]` uint8; the suffix chooses the format. Whole or not at all."""
    target = Path(path)
    if target.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"'{target.name}' has no image suffix that can be written; "
            f"use one of {', '.join(IMAGE_SUFFIXES)}"
        )
    with atomic_path(target) as temporary:
        Image.fromarray(image).save(temporary, quality=95)


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _grey16_to_rgb(samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    grey = np.clip(samples.astype(np.float64) / 257, 0, 255)
    return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)
