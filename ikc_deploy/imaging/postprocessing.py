"""Postprocessing of upscaled images: strength, output size and preview.

All operations work on the stored values, like the networks, not in linear light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.resize import resized
from ikc_deploy.option_fields import Option, check_options
from ikc_deploy.text import shown

MAX_OUTPUT_PIXELS: Final = 2**29
"""Maximum number of pixels of a resized image."""

_MAX_SIDE: Final = 65535
_LINE: Final = 2


@dataclass(frozen=True)
class Postprocessing:
    """Postprocessing of the network's image: blending, resizing, preview.

        postprocessing = Postprocessing(factor=2.5, strength=0.8)
        image = postprocessing(frame, upscaler(frame).image)

    Raises:
        InputError: A value is out of range, or sizes contradict each other.
    """

    size: Annotated[
        tuple[int, int] | None,
        Option(
            "Output size: the image is upscaled by the network's scale, then resized (Lanczos) to "
            "fit into it.",
            heading="Output",
            metavar="WxH",
        ),
    ] = None
    width: Annotated[
        int | None,
        Option("Output width.", minimum=1, maximum=_MAX_SIDE, heading="Output"),
    ] = None
    height: Annotated[
        int | None,
        Option("Output height.", minimum=1, maximum=_MAX_SIDE, heading="Output"),
    ] = None
    factor: Annotated[
        float | None,
        Option(
            "Output size as a multiple of the input's, for example 2.5.",
            minimum=0.01,
            maximum=100,
            heading="Output",
        ),
    ] = None
    stretch: Annotated[
        bool,
        Option(
            "Fill both sides of the output size instead of keeping the aspect.", heading="Output"
        ),
    ] = False
    strength: Annotated[
        float,
        Option(
            "Share of the network in the output, from 0 (bicubic upscaling) to 1, in linear steps.",
            minimum=0,
            maximum=1,
            heading="Output",
        ),
    ] = 1.0
    preview: Annotated[
        bool,
        Option(
            "Show the bicubic upscaling in the left half; of a clip, upscale three seconds.",
            heading="Output",
        ),
    ] = False

    def __post_init__(self) -> None:
        """Require one size at most, and every value in its range."""
        check_options(self)
        sides = {"--width": self.width, "--height": self.height}
        given = [name for name, side in sides.items() if side is not None]
        ways = [
            *(["--size"] if self.size is not None else []),
            *([" with ".join(given)] if given else []),
            *(["--factor"] if self.factor is not None else []),
        ]
        if len(ways) > 1:
            raise InputError(f"{' and '.join(ways)} both give the output size; give one of them")
        if self.size is not None and not all(1 <= side <= _MAX_SIDE for side in self.size):
            width, height = map(shown, self.size)
            raise InputError(
                f"invalid output size {width}x{height}: width and height must be whole numbers "
                f"from 1 to {_MAX_SIDE} pixels"
            )
        if self.stretch and self._box is None:
            raise InputError("--stretch needs both sides of the output size, for example --size")

    @property
    def _box(self) -> tuple[int, int] | None:
        """Width and height if both are given, else None."""
        if self.size is not None:
            return self.size
        if self.width is not None and self.height is not None:
            return self.width, self.height
        return None

    @property
    def resizes(self) -> bool:
        """Whether an output size is given."""
        return any(each is not None for each in (self.size, self.width, self.height, self.factor))

    def output_size(
        self, height: int, width: int, scale: int, *, even: bool = False
    ) -> tuple[int, int]:
        """Return height and width of the output in pixels.

        Args:
            height: Height of the input.
            width: Width of the input.
            scale: Scale factor of the network, which applies if no size is given.
            even: Whether to round given sizes to even numbers, as video encoders need them.

        Raises:
            InputError: The output would have a side without pixels, or too many pixels.
        """
        if not self.resizes:
            return scale * height, scale * width
        wanted_height, wanted_width = self._wanted(height, width)
        unit = 2 if even else 1
        sides = [unit * round(side / unit) for side in (wanted_height, wanted_width)]
        box = self._box
        if box is not None:
            sides = [
                min(side, unit * (most // unit))
                for side, most in zip(sides, box[::-1], strict=True)
            ]
        if min(sides) < unit or sides[0] * sides[1] > MAX_OUTPUT_PIXELS:
            raise InputError(
                f"an output of {sides[1]}x{sides[0]} pixels, from {width}x{height}, is impossible: "
                f"a side needs at least {unit} pixels, and the whole at most "
                f"{MAX_OUTPUT_PIXELS / 1e6:.0f} million; give another output size"
            )
        return sides[0], sides[1]

    def _wanted(self, height: int, width: int) -> tuple[float, float]:
        box = self._box
        if box is not None and self.stretch:
            return float(box[1]), float(box[0])
        if box is not None:
            factor = min(box[0] / width, box[1] / height)
        elif self.width is not None:
            factor = self.width / width
        elif self.height is not None:
            factor = self.height / height
        else:
            factor = self.factor or 1.0
        return factor * height, factor * width

    def __call__(
        self,
        lr: NDArray[np.uint8],
        sr: NDArray[np.uint8],
        size: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Return the postprocessed image.

        Args:
            lr: Input of the network, RGB `[H,W,3]` uint8.
            sr: Output of the network, `[sH,sW,3]` uint8; it is not changed.
            size: Height and width from `output_size`; None to compute them.

        Returns:
            The image `[height,width,3]` uint8; `sr` itself if there is nothing to do.

        Raises:
            InputError: The size is impossible.
        """
        if size is None:
            size = self.output_size(lr.shape[0], lr.shape[1], sr.shape[0] // lr.shape[0])
        height, width = size
        shows_plain = self.preview or self.strength != 1
        plain = resized(lr, *sr.shape[:2], enlarge=True) if shows_plain else sr
        image = resized(blended(plain, sr, self.strength), height, width)
        if not self.preview:
            return image
        plain = resized(plain, height, width)
        middle = width // 2
        split = image.copy()
        split[:, :middle] = plain[:, :middle]
        split[:, max(0, middle - _LINE) : middle] = 255
        return split


def blended(plain: NDArray[np.uint8], sr: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Return `strength * sr + (1 - strength) * plain`, rounded, `[sH,sW,3]` uint8."""
    if strength == 1:
        return sr
    share = np.float32(strength)
    result = np.empty_like(sr)
    # In bands, so that floats need little memory.
    for start in range(0, len(sr), _BAND):
        rows = slice(start, start + _BAND)
        mixed = share * sr[rows] + (1 - share) * plain[rows]
        result[rows] = np.rint(mixed)
    return result


_BAND: Final = 256


NO_POSTPROCESSING: Final = Postprocessing()
