"""Frames as picture files: a folder of them as a source, a numbered name as a sink."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from ikc_deploy.errors import InputError, VideoError
from ikc_deploy.imaging.image_io import IMAGE_SUFFIXES, list_images, read_rgb, write_rgb
from ikc_deploy.video.colour import Colour
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.names import NUMBER, is_numbered
from ikc_deploy.video.write_errors import writing

_MANY: Final = 9_999_999
"""A number as long as that of any frame that is likely."""


class ImageFolder:
    """The pictures of a folder in order of their names, as a stream of `rate` frames a second.

    Raises `InputError` if the folder has none.
    """

    def __init__(self, folder: Path, rate: Fraction) -> None:
        self.warnings: list[str] = []
        self._paths = list_images(folder)
        height, width = read_rgb(self._paths[0]).shape[:2]
        self.facts = StreamFacts(width, height, 1 / rate, rate, Colour(), frames=len(self._paths))

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Raises `InputError` for a picture that cannot be read or has another size."""
        for pts, path in list(enumerate(self._paths))[skip:]:
            rgb = read_rgb(path)
            if rgb.shape[:2] != (self.facts.height, self.facts.width):
                raise InputError(
                    f"'{path}' has {rgb.shape[1]}x{rgb.shape[0]} pixels, the frames before "
                    f"{self.facts.width}x{self.facts.height}; all must have one size"
                )
            yield Frame(rgb, pts)


class NumberedImages:
    """One picture file for each frame, named by its number from 1 on, each whole or absent.

    With `resume`, the files that are there already, counted without a gap, are kept. `size` is the
    height and width that they will have. Raises `VideoError`, `InputError` or `DiskFullError` if
    such files cannot be written there.
    """

    warnings = ()

    def __init__(self, pattern: Path, resume: bool = False, size: tuple[int, int] = (1, 1)) -> None:
        if not is_numbered(pattern):
            raise VideoError(
                f"'{pattern}' names no numbered pictures; write a name such as frames/%06d.png, "
                f"ending in {', '.join(IMAGE_SUFFIXES)}"
            )
        self._pattern = pattern
        self._try(*size)
        self.done = 0
        while resume and self._path(self.done + 1).exists():
            self.done += 1
        self._written = self.done

    def write(self, frame: Frame) -> None:
        """Raises `InputError` if the file cannot be written."""
        write_rgb(frame.rgb, self._path(self._written + 1))
        self._written += 1

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - every file is whole
        """Nothing is left to do."""
        return ()

    def abort(self) -> None:
        """Nothing is left to do: every file is whole."""

    def _try(self, height: int, width: int) -> None:
        """Write files of the longest name and of both sides, and delete them again."""
        folder = self._pattern.parent
        with writing(self._pattern):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".", dir=folder) as trial:
                path = Path(trial) / self._path(_MANY).name
                for shape in ((1, width, 3), (height, 1, 3)):
                    write_rgb(np.zeros(shape, np.uint8), path)

    def _path(self, number: int) -> Path:
        name = NUMBER.sub(lambda found: found[0] % number, self._pattern.name)
        return self._pattern.with_name(name)
