"""Frames as image files: an image sequence as a source, numbered images as a sink."""

from __future__ import annotations

import re
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from ikc_deploy.errors import InputError, VideoError
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.suffixes import WRITABLE_SUFFIXES
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.video.colour import Colour
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.names import NUMBER, is_numbered
from ikc_deploy.video.write_errors import writing

_MANY: Final = 9_999_999
"""A frame number with as many digits as any likely one."""


class ImageSequence:
    """An image sequence as a source of `rate` frames per second.

    Args:
        source: Folder, whose images are taken in order of their names, or a pattern such as
            frames/%04d.png, whose images are taken in order of their numbers.
        rate: Frames per second.

    Raises:
        InputError: There is no image, or the first image cannot be read.
    """

    def __init__(self, source: Path, rate: Fraction) -> None:
        self.name = str(source)
        self.warnings: list[str] = []
        self._paths = list_images(source) if source.is_dir() else self._numbered(source)
        height, width = read_rgb(self._paths[0]).shape[:2]
        self.facts = StreamFacts(width, height, 1 / rate, rate, Colour(), frames=len(self._paths))

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Yield the images in order, without the first `skip`.

        Raises:
            InputError: An image cannot be read or has another size.
        """
        for pts, path in list(enumerate(self._paths))[skip:]:
            rgb = read_rgb(path)
            if rgb.shape[:2] != (self.facts.height, self.facts.width):
                raise InputError(
                    f"'{path}' has {rgb.shape[1]}x{rgb.shape[0]} pixels, the frames before "
                    f"{self.facts.width}x{self.facts.height}; all images must have the same size"
                )
            yield Frame(rgb, pts)

    def _numbered(self, pattern: Path) -> list[Path]:
        """Return the images of a pattern; add a warning for a gap in the numbers."""
        before, after = NUMBER.split(pattern.name)
        digits = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
        found = (digits.fullmatch(path.name) for path in pattern.parent.glob("*"))
        numbers = sorted(int(match[1]) for match in found if match is not None)
        paths = {
            number: path for number in numbers if (path := image_path(pattern, number)).is_file()
        }
        if not paths:
            raise InputError(
                f"there is no image '{pattern}', for example '{image_path(pattern, 1)}'; give a "
                "pattern with the digits of the names, or the folder"
            )
        first, last = min(paths), max(paths)
        missing = next((number for number in range(first, last) if number not in paths), None)
        if missing is not None:
            self.warnings.append(
                f"'{image_path(pattern, missing)}' is missing; the clip continues with the next "
                "image"
            )
        return list(paths.values())


class NumberedImages:
    """A sink that writes one image file per frame, numbered from 1 on, each complete or absent.

    Args:
        pattern: Path with one place for the number, such as frames/%06d.png.
        resume: Whether to keep the existing files up to the first missing number.
        size: Height and width of the images in pixels.

    Raises:
        VideoError: `pattern` has no place for a number, or its folder cannot be written.
        InputError: Images of this size cannot be written in this format.
        DiskFullError: The disk is full.
    """

    warnings = ()

    def __init__(self, pattern: Path, resume: bool = False, size: tuple[int, int] = (1, 1)) -> None:
        if not is_numbered(pattern):
            raise VideoError(
                f"invalid name of numbered images '{pattern}': expected for example "
                f"frames/%06d.png, ending in {', '.join(WRITABLE_SUFFIXES)}"
            )
        self._pattern = pattern
        self._try(*size)
        self.done = 0
        while resume and self._path(self.done + 1).exists():
            self.done += 1
        self._written = self.done

    def write(self, frame: Frame) -> None:
        """Write the next frame; raise `InputError` if the file cannot be written."""
        write_rgb(frame.rgb, self._path(self._written + 1))
        self._written += 1

    def finish(self, complete: bool) -> tuple[str, ...]:  # noqa: ARG002 - every file is complete
        """Do nothing; every file is complete."""
        return ()

    def abort(self) -> None:
        """Do nothing; every file is complete."""

    def _try(self, height: int, width: int) -> None:
        """Write and delete files with the longest name and with each of the two sides."""
        folder = self._pattern.parent
        with writing(self._pattern):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".", dir=folder) as trial:
                path = Path(trial) / self._path(_MANY).name
                for shape in ((1, width, 3), (height, 1, 3)):
                    write_rgb(np.zeros(shape, np.uint8), path)

    def _path(self, number: int) -> Path:
        return image_path(self._pattern, number)


def image_path(pattern: Path, number: int) -> Path:
    """Return the path of one of the images of a pattern."""
    return pattern.with_name(NUMBER.sub(lambda found: found[0] % number, pattern.name))
