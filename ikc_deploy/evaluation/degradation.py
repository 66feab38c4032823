"""From HR to LR: blur, bicubic downscaling, noise, rounding to 8 bits, JPEG; in this order."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.degrade import blur
from ikc_deploy.imaging.resize import quantize, resize_bicubic
from ikc_deploy.option_fields import Option


@dataclass(frozen=True)
class Degradation:
    """The degradation of an LR image after the blur; only downscaling by default.

    Raises:
        InputError: The noise or the JPEG quality is out of range.
    """

    noise: Annotated[
        float,
        Option(
            "Add white Gaussian noise to each channel of the LR images, with this standard "
            "deviation in 8-bit levels.",
            minimum=0,
            metavar="LEVELS",
        ),
    ] = 0.0
    jpeg: Annotated[
        int | None,
        Option(
            "Compress the LR images by JPEG (chroma 4:2:0) at this quality, 1 to 100.",
            metavar="QUALITY",
        ),
    ] = None
    seed: Annotated[
        int,
        Option(
            "Seed of the noise (the image's name is added to it), of kernels drawn at random, and "
            "of the intervals.",
            minimum=0,
        ),
    ] = 0

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
        """Blur an HR image and then `downscale` it.

        Args:
            hr: RGB `[H,W,3]` uint8, H and W multiples of `scale`.
            kernel: Blur kernel `[k,k]`, k odd, sum 1.
            scale: Scale factor s: 2, 3 or 4.
            name: Name of the image, which determines its noise.

        Returns:
            The LR image, `[H/s,W/s,3]` uint8.
        """
        return self.downscale(blur(hr, kernel), scale, name)

    def downscale(self, blurred: NDArray[np.floating], scale: int, name: str) -> NDArray[np.uint8]:
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
