"""From HR to LR: blur, bicubic shrinking, noise, rounding to 8 bits, JPEG; in this order."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.degrade import blur, quantize
from ikc_deploy.imaging.resize import resize_bicubic


@dataclass(frozen=True)
class Degradation:
    """What an LR image suffers beyond its blur; nothing by default."""

    noise: float = 0.0
    """Standard deviation of white Gaussian noise on each channel, in 8-bit levels."""
    jpeg: int | None = None
    """Quality 1 to 100 of a JPEG that the LR image passes through, chroma halved (4:2:0); None for
    no JPEG."""
    seed: int = 0
    """Of the noise, together with an image's name."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise InputError(f"noise must be 0 or more 8-bit levels, got {self.noise:g}")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise InputError(f"JPEG quality must be 1 to 100, got {self.jpeg}")

    @property
    def title(self) -> str:
        """For people: ", noise 10, JPEG 60", or nothing."""
        noise = f", noise {self.noise:g}" if self.noise else ""
        return noise + (f", JPEG {self.jpeg}" if self.jpeg is not None else "")

    def apply(
        self, hr: NDArray[np.uint8], kernel: NDArray[np.floating], scale: int, name: str
    ) -> NDArray[np.uint8]:
        """The LR image `[H/s,W/s,3]` uint8 of an HR image `[H,W,3]` uint8, sides multiples of s,
        blurred by `kernel` and then as `shrink` says."""
        return self.shrink(blur(hr, kernel), scale, name)

    def shrink(self, blurred: NDArray[np.floating], scale: int, name: str) -> NDArray[np.uint8]:
        """The LR image `[H/s,W/s,3]` uint8 of an HR image that is blurred already, `[H,W,3]` in
        0..255.

        The noise is that of the image called `name`: the same under every blur, and whichever
        images are measured with it.
        """
        lr = resize_bicubic(blurred, 1 / scale)
        if self.noise:
            lr += self.noise * self._random(name).standard_normal(lr.shape)
        rounded = quantize(lr)
        return rounded if self.jpeg is None else _through_jpeg(rounded, self.jpeg)

    def _random(self, name: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}:{name}".encode("utf-8", "surrogateescape")).digest()
        return np.random.default_rng(int.from_bytes(digest, "big"))


def _through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.array(Image.open(file).convert("RGB"))
