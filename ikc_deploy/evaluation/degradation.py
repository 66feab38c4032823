"""From HR to LR: blur, bicubic downscaling, noise, rounding to 8 bits, JPEG; in this order."""

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
    """The degradation of an LR image after the blur; only downscaling by default.

    Raises:
        InputError: The noise or the JPEG quality is out of range.
    """

    noise: float = 0.0
    """Standard deviation of white Gaussian noise on each channel, in 8-bit levels."""
    jpeg: int | None = None
    """Quality, 1 to 100, of the JPEG compression (chroma 4:2:0) of the LR image; None for no
    JPEG."""
    seed: int = 0
    """Seed of the noise; the image's name is added to it."""

    def __post_init__(self) -> None:
        """Require noise of at least 0 levels and a JPEG quality of 1 to 100."""
        if not 0 <= self.noise < math.inf:
            raise InputError(f"noise must be 0 or more 8-bit levels, got {self.noise:g}")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise InputError(f"JPEG quality must be 1 to 100, got {self.jpeg}")

    @property
    def title(self) -> str:
        """Text to append to a title, such as ", noise 10, JPEG 60"; empty for no degradation."""
        noise = f", noise {self.noise:g}" if self.noise else ""
        return noise + (f", JPEG {self.jpeg}" if self.jpeg is not None else "")

    def apply(
        self, hr: NDArray[np.uint8], kernel: NDArray[np.floating], scale: int, name: str
    ) -> NDArray[np.uint8]:
        """Blur an HR image and then `shrink` it.

        Args:
            hr: RGB `[H,W,3]` uint8, H and W multiples of `scale`.
            kernel: Blur kernel `[k,k]`, k odd, sum 1.
            scale: Scale factor s: 2, 3 or 4.
            name: Name of the image, which determines its noise.

        Returns:
            The LR image, `[H/s,W/s,3]` uint8.
        """
        return self.shrink(blur(hr, kernel), scale, name)

    def shrink(self, blurred: NDArray[np.floating], scale: int, name: str) -> NDArray[np.uint8]:
        """Return the LR image of a blurred HR image.

        Args:
            blurred: `[H,W,3]` in 0..255, H and W multiples of `scale`.
            scale: Scale factor s: 2, 3 or 4.
            name: Name of the image. The noise depends only on it and the seed: it is the same
                under every blur and does not depend on the other images measured.

        Returns:
            The LR image, `[H/s,W/s,3]` uint8.
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
