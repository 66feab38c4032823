"""Upscale a folder of images with the typed API, as `mypy --strict` checks it.

    python examples/typed_user.py photos upscaled

An image under a blur that the weights do not know is skipped, with the sigma that was estimated.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb


@dataclass(frozen=True)
class Upscaled:
    """An upscaled image and its blur."""

    image: NDArray[np.uint8]
    """RGB image `[4H,4W,3]`."""
    sigma: float
    """Blur in HR pixels."""


def upscale(upscaler: ikc_deploy.Upscaler, frame: NDArray[np.uint8]) -> Upscaled:
    """Return an RGB frame `[H,W,3]` upscaled."""
    result: ikc_deploy.Result = upscaler(frame)
    return Upscaled(np.asarray(result.image), float(np.max(result.sigma)))


def main(source: Path, target: Path) -> None:
    """Upscale every PNG file of `source` into `target`."""
    target.mkdir(exist_ok=True)
    with ikc_deploy.load(threads=2) as upscaler:
        for path in sorted(source.glob("*.png")):
            try:
                upscaled = upscale(upscaler, read_rgb(path))
            except ikc_deploy.IkcError as error:
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            write_rgb(upscaled.image, target / path.name)
            print(f"{path.name}: sigma {upscaled.sigma:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
