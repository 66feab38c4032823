"""Does an offline method find a kernel that is known? One picture, degraded here, and a figure.

python -m ikc_deploy.benchmarks.offline HR --method dip-fkp --scale 2 --json FILE
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.metrics import kernel_psnr, psnr_y
from ikc_deploy.files import write_atomically
from ikc_deploy.images import read_rgb
from ikc_deploy.kernels import (
    degrade_fkp,
    fkp_size,
    mean_fkp_kernel,
    random_fkp_kernels,
)
from ikc_deploy.offline.degrading import upscaled
from ikc_deploy.offline.fitting import Losses, Result
from ikc_deploy.offline.methods import METHODS, Method


@dataclass(frozen=True, eq=False)
class Case:
    """A picture and the kernel that it is degraded by."""

    hr: NDArray[np.uint8]
    kernel: NDArray[np.float64]
    scale: int

    @classmethod
    def cut(cls, image: NDArray[np.uint8], side: int | None, scale: int, seed: int) -> Case:
        """The middle `side` x `side` pixels, or all; the first kernel of a generator's seed."""
        height, width = (min(side or size, size) // scale * scale for size in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        hr = np.ascontiguousarray(image[top : top + height, left : left + width])
        (kernel,) = random_fkp_kernels(np.random.default_rng(seed), 1, scale)
        return cls(hr, kernel, scale)

    @property
    def lr(self) -> NDArray[np.uint8]:
        """Blurred, sampled and rounded."""
        degraded = degrade_fkp(self.hr, self.kernel, self.scale)
        return np.clip(np.rint(degraded), 0, 255).astype(np.uint8)

    def image_psnr(self, image: NDArray[np.uint8]) -> float:
        """PSNR-Y in dB against the HR picture."""
        return psnr_y(image, self.hr, self.scale)

    def kernel_psnr(self, kernel: NDArray[np.floating]) -> dict[str, float]:
        """PSNR in dB against the true kernel, both ways (see `evaluation.metrics`)."""
        return {
            "peak_1": kernel_psnr(kernel, self.kernel, 1.0),
            "own_peak": kernel_psnr(kernel, self.kernel),
        }


def delta(size: int, scale: int) -> NDArray[np.float64]:
    """No blur at all, as far as a kernel `[size,size]` can say so.

    The middle of LR pixels lies between HR pixels at even scales: there the four around it share.
    """
    profile = np.maximum(0, 1 - np.abs(np.arange(size) - (size - scale) / 2))
    return np.outer(profile, profile) / profile.sum() ** 2


def measure(case: Case, result: Result) -> dict[str, Any]:
    """A method's result beside bicubic upscaling, a delta and the mean kernel."""
    size = fkp_size(case.scale)
    kernels = {"delta": delta(size, case.scale), "mean kernel": mean_fkp_kernel(case.scale)}
    if result.kernel is not None:
        kernels["found"] = result.kernel
    return {
        "psnr_y": {
            "bicubic": case.image_psnr(upscaled(case.lr, case.scale, "fkp")),
            "found": case.image_psnr(result.image),
        },
        "kernel_psnr": {name: case.kernel_psnr(kernel) for name, kernel in kernels.items()},
        "true_kernel": case.kernel.round(6).tolist(),
        "found_kernel": None if result.kernel is None else result.kernel.round(6).tolist(),
    }


@click.command()
@click.argument("hr", type=click.Path(path_type=Path))
@click.option("--method", type=click.Choice(list(METHODS)), required=True)
@click.option("--scale", type=click.IntRange(2, 4), default=2, show_default=True)
@click.option("--side", type=int, help="Only the middle of the picture, in HR pixels.")
@click.option("--kernel-seed", type=int, default=0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the method.")
@click.option("--iterations", type=int, help="[default: the method's]")
@click.option("--set", "given", multiple=True, metavar="NAME=NUMBER", help="Another setting.")
@click.option("--prior", type=click.Path(path_type=Path), help="Weights of the kernel flow.")
@click.option("--state", type=click.Path(path_type=Path), help="Keep the fit here.")
@click.option("--json", "path", type=click.Path(path_type=Path), required=True)
def main(
    hr: Path,
    method: str,
    scale: int,
    side: int | None,
    kernel_seed: int,
    seed: int,
    iterations: int | None,
    given: tuple[str, ...],
    prior: Path | None,
    state: Path | None,
    path: Path,
) -> None:
    """Degrade HR in the FKP convention, fit, and write what was found as JSON."""
    case = Case.cut(read_rgb(hr), side, scale, kernel_seed)
    chosen = METHODS[method]
    settings = chosen.settings(
        seed=seed, iterations=iterations, alignment="fkp", prior=prior, **_numbers(given)
    )
    found = _fit(case, chosen, settings, state)
    asked = {"hr": hr.name, "side": side, "scale": scale, "kernel_seed": kernel_seed}
    report = {
        "method": method,
        "case": asked,
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        **found,
        "machine": describe_machine(),
    }
    write_atomically(path, f"{json.dumps(report, indent=2)}\n".encode())
    click.echo(json.dumps({k: report[k] for k in ("psnr_y", "kernel_psnr")}))


def _fit(case: Case, method: Method, settings: Any, state: Path | None) -> dict[str, Any]:
    def show(done: int, total: int, losses: Losses) -> None:
        if done % 50 == 0:
            click.echo(f"{done}/{total} {losses}", err=True)

    result = method.load().fit(case.lr, case.scale, settings, show, stop=None, state=state)
    return measure(case, result) | {"iterations": len(result.history)}


def _numbers(given: tuple[str, ...]) -> dict[str, float]:
    pairs = (text.partition("=") for text in given)
    try:
        return {name: int(value) if value.isdigit() else float(value) for name, _, value in pairs}
    except ValueError:
        raise InputError(f"--set takes NAME=NUMBER, got {', '.join(given)}") from None


if __name__ == "__main__":
    main()
