"""Blur and shrink a real photograph, upscale it blind, and compare.

    python examples/demo.py --bundle demo/bundle --out demo

The photograph is blurred with a Gaussian of sigma 2.6 and shrunk by 4. The upscaler gets only the
small image. Prints the PSNR of bicubic upscaling and ikc-deploy, and writes a side-by-side image.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import ikc_deploy
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.imaging.writing import write_rgb

SIGMA = 2.6
PHOTO = Path(__file__).parent.parent / "samples" / "kodim23.png"
SHOWN = (slice(130, 450), slice(60, 380))
"""Part of the photograph that the side-by-side image shows."""


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(bundle: Path, out: Path) -> None:
    """Run the demo with the bundle at BUNDLE and write images to OUT."""
    hr = read_rgb(PHOTO)
    with ikc_deploy.load(bundle) as upscaler:
        lr = degrade_gaussian(hr, SIGMA, upscaler.scale)
        bicubic = upscale_bicubic(lr, upscaler.scale)
        result = upscaler(lr)
    ours = psnr_y(result.image, hr, upscaler.scale)
    theirs = psnr_y(bicubic, hr, upscaler.scale)
    panels = {
        "original": hr,
        f"bicubic, {theirs:.2f} dB": bicubic,
        f"ikc-deploy, {ours:.2f} dB": result.image,
    }
    write_rgb(lr, out / "input.png")
    write_rgb(result.image, out / "upscaled.png")
    picture = out / "side_by_side.png"
    write_rgb(side_by_side(panels), picture)
    click.echo(f"blur sigma   true {SIGMA:.2f}, estimated {result.sigma:.2f}")
    click.echo(f"PSNR-Y       bicubic {theirs:.2f} dB, ikc-deploy {ours:.2f} dB")
    click.echo(f"time         {result.timings['total']:.0f} ms for {lr.shape[1]}x{lr.shape[0]}")
    click.echo(f"image        {picture}")


def side_by_side(panels: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return the shown part of each image `[H,W,3]` in a row, with its label above."""
    height = SHOWN[0].stop - SHOWN[0].start
    width = SHOWN[1].stop - SHOWN[1].start
    gap, bar = 8, 28
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, height + bar), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for index, (label, picture) in enumerate(panels.items()):
        left = index * (width + gap)
        sheet.paste(Image.fromarray(picture[SHOWN]), (left, bar))
        draw.text((left, 4), label, fill="black", font=font)
    return np.asarray(sheet)


if __name__ == "__main__":
    main()
