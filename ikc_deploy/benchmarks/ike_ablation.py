"""What each part of IKE brings: the rows of its paper's ablation on one crop, for docs/offline.md.

    python -m ikc_deploy.cli.ike_ablation --json ike-ablation.json

The crop is degraded, shrunk and fitted with nothing but the first losses, then with one switch more
in each row, from the same seed and for as many iterations. PSNR and SSIM are those of `ikc-eval`.
Every row's PSNR is also kept on the way, at eighths of the fit: nobody who has no HR image
could stop at the best of them, and the figure of a row is its last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import BlurSet, DegradationName
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.gaussian8 import crop_to_multiple, upscale_bicubic
from ikc_deploy.evaluation.metrics import psnr_y, ssim_y
from ikc_deploy.images import read_rgb
from ikc_deploy.offline.ike import Fit, Settings

SWITCHES: Final = (
    "energy",
    "tri_channel",
    "bicubic_residual",
    "csr_backward",
    "interpolation",
)
"""In the paper's order; every row has one more."""

_LOOKS: Final = 8
"""How often a row's PSNR is taken on the way."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Plan:
    """One crop and one fit. Raises `InputError` for what cannot be measured."""

    image: Path
    top: int
    left: int
    side: int
    """Of the HR crop, in pixels."""
    degradation: DegradationName = "median"
    """Of a random one, the first kernel."""
    scale: int = 2
    threads: int = 1
    settings: Settings = field(default_factory=Settings)
    """Its switches are overruled by the rows."""

    def __post_init__(self) -> None:
        if self.settings.iterations % _LOOKS:
            raise InputError(f"--iterations must be a multiple of {_LOOKS}, to be looked at")
        if min(self.top, self.left) < 0 or self.side < 1 or self.threads < 1:
            raise InputError(
                "a crop needs a place inside the image and a size; threads, at least 1"
            )

    def pair(self) -> tuple[Image, Image]:
        """The HR crop, and its LR image."""
        whole = read_rgb(self.image)
        hr = whole[self.top : self.top + self.side, self.left : self.left + self.side]
        if hr.shape[:2] != (self.side, self.side):
            raise InputError(f"the crop is not inside '{self.image}', {list(whole.shape[:2])}")
        hr = crop_to_multiple(hr, self.scale)
        blur = BlurSet.degradation(self.degradation, self.scale, self.settings.seed).blurs[0]
        return hr, Degradation().shrink(blur.apply(hr), self.scale, self.image.name)

    def rows(self) -> Iterator[tuple[str, Settings]]:
        """Name and settings of every row, the full model last."""
        for count in range(len(SWITCHES) + 1):
            switches: dict[str, Any] = {name: index < count for index, name in enumerate(SWITCHES)}
            yield _name(count), replace(self.settings, **switches)


@dataclass(frozen=True)
class Row:
    """One fit."""

    name: str
    psnr_y: float
    ssim_y: float
    psnr_on_the_way: list[float]
    """Before the first iteration, and after each eighth of them."""
    processor_seconds: float
    """Of the iterations, all threads together."""


def measure(
    plan: Plan,
    keep: Callable[[dict[str, Any]], None],
    show: Callable[[str, Image], None] = lambda *_: None,
) -> dict[str, Any]:
    """All rows; `keep` gets what there is after each, `show` every image under its name."""
    torch.set_num_threads(plan.threads)
    hr, lr = plan.pair()
    bicubic = upscale_bicubic(lr, plan.scale)
    for name, image in (("HR", hr), ("bicubic", bicubic)):
        show(name, image)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "image": plan.image.name,
        "crop": {"top": plan.top, "left": plan.left, "side": plan.side},
        "degradation": plan.degradation,
        "scale": plan.scale,
        "threads": plan.threads,
        "settings": {k: v for k, v in asdict(plan.settings).items() if k not in SWITCHES},
        "bicubic": _scores(bicubic, hr, plan.scale),
        "rows": [],
    }
    for name, settings in plan.rows():
        row, image = _measure_row(name, Fit(lr, plan.scale, settings), hr, plan)
        report["rows"].append(asdict(row))
        show(name, image)
        keep(report)
    return report


def _measure_row(name: str, fit: Fit, hr: Image, plan: Plan) -> tuple[Row, Image]:
    on_the_way, seconds = [psnr_y(fit.image(), hr, plan.scale)], 0.0
    for _ in range(_LOOKS):
        started = time.process_time()
        for _ in range(fit.iterations // _LOOKS):
            fit.step()
        seconds += time.process_time() - started
        on_the_way.append(psnr_y(fit.image(), hr, plan.scale))
    image = fit.image()
    found = _scores(image, hr, plan.scale)
    return Row(name, **found, psnr_on_the_way=on_the_way, processor_seconds=seconds), image


def _scores(image: Image, hr: Image, scale: int) -> dict[str, float]:
    return {"psnr_y": psnr_y(image, hr, scale), "ssim_y": ssim_y(image, hr, scale)}


def _name(count: int) -> str:
    return f"+ {SWITCHES[count - 1].replace('_', ' ')}" if count else "none"
