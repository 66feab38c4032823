"""Suffixes of image files."""

from __future__ import annotations

from typing import Final

WRITABLE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Suffixes of the image files that can be written."""

READABLE_SUFFIXES: Final = (*WRITABLE_SUFFIXES, ".jfif", ".gif", ".avif", ".heic", ".heif")
"""Suffixes of the image files that are listed from folders."""
