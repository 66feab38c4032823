"""Write the recommended number of corrections into the checkpoints of shipped weights.

    python training/recommend.py x4-lite

The curve over the steps is the first table with a row for every step in the card
(`ikc_deploy/weights/NAME.md`), whose tables are those of `ikc-eval`. `ikc-export` copies the number
into the manifest, from which `ikc_deploy.load()` and `ikc-upscale` read it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click
import torch

import ikc_deploy.weights
from ikc_deploy.networks.checkpoints import load_checkpoint, save_checkpoint
from ikc_deploy.training.validation import recommended_iters

_ROW: Final = re.compile(r"^\| step (\d+)[^|]*\|\s*([\d.]+) ", re.MULTILINE)


def read_curve(card: str) -> list[float]:
    """Return the PSNR-Y in dB at steps 0, 1, ... of the first table of a card.

    Raises:
        click.ClickException: The card has no such table.
    """
    curve: list[float] = []
    for step, psnr in _ROW.findall(card):
        if int(step) != len(curve):
            break
        curve.append(float(psnr))
    if not curve:
        raise click.ClickException("the card has no table by step; write it with training/card.py")
    return curve


@click.command()
@click.argument("names", nargs=-1, required=True)
def main(names: tuple[str, ...]) -> None:
    """Recommend a number of corrections for the shipped weights NAMES."""
    folder = Path(ikc_deploy.weights.__file__).parent
    for name in names:
        path = folder / f"{name}.safetensors"
        iters = recommended_iters(read_curve((folder / f"{name}.md").read_text()))
        networks = load_checkpoint(path)
        networks.training["recommended_iters"] = iters
        save_checkpoint(networks, path, torch.float16)
        click.echo(f"{name}: {iters} corrections")


if __name__ == "__main__":
    main()
