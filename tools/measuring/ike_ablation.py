"""The effect of each part of IKE: the ablation of its paper on one crop, for docs/offline.md.

    python -m tools.measure_ike_ablation --json ike-ablation.json

The crop is degraded and fitted with only the first losses, then with one more switch in each row,
from the same seed and for the same number of iterations. PSNR and SSIM are those of `ikc-eval`.
The PSNR after every eighth of the fit is also recorded. The result of a row is the last one:
without the HR image, a user could not stop at the best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import torch

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.errors import InputError
from ikc_deploy.imaging.metrics import psnr_y, ssim_y
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.offline.ike import IkeFit, IkeSettings
from tools.measuring.degraded_crop import DegradedCrop, Image

SWITCHES: Final = (
    "energy",
    "tri_channel",
    "bicubic_residual",
    "csr_backward",
    "interpolation",
)
"""Switches in the order of the paper; every row has one more."""

_LOOKS: Final = 8
"""Number of times that a row's PSNR is recorded during the fit."""


@dataclass(frozen=True)
class AblationPlan:
    """The plan of an ablation: one crop and the settings of its fits.

    Raises:
        InputError: A value is out of range.
    """

    case: DegradedCrop
    """Crop to fit."""
    threads: int = 1
    """Number of CPU cores to use."""
    settings: IkeSettings = field(default_factory=IkeSettings)
    """Settings of the fits; the rows override the switches."""

    def __post_init__(self) -> None:
        """Require at least one thread, and iterations that divide into equal parts."""
        if self.settings.iterations % _LOOKS:
            raise InputError(f"--iterations must be a multiple of {_LOOKS}")
        if self.threads < 1:
            raise InputError("--threads must be at least 1")

    def rows(self) -> Iterator[tuple[str, IkeSettings]]:
        """Yield name and settings of every row, the full model last."""
        for count in range(len(SWITCHES) + 1):
            switches: dict[str, Any] = {name: index < count for index, name in enumerate(SWITCHES)}
            yield _name(count), replace(self.settings, **switches)


@dataclass(frozen=True)
class AblationRow:
    """The result of one fit."""

    name: str
    """Name of the last switch that is on."""
    psnr_y: float
    """PSNR of luma in dB at the end."""
    ssim_y: float
    """SSIM of luma at the end."""
    psnr_on_the_way: list[float]
    """PSNR of luma before the first iteration and after each eighth of them."""
    processor_seconds: float
    """CPU time of the iterations, all threads together."""


def measure(
    plan: AblationPlan,
    keep: Callable[[dict[str, Any]], None],
    show: Callable[[str, Image], None] = lambda *_: None,
) -> dict[str, Any]:
    """Measure all rows and return the report.

    Args:
        plan: Plan of the ablation.
        keep: Called with the report so far after each row.
        show: Called with the name and the image of each row, of the HR crop and of bicubic.
    """
    torch.set_num_threads(plan.threads)
    case, scale = plan.case, plan.case.scale
    hr, lr = case.pair()
    bicubic = upscale_bicubic(lr, scale)
    for name, image in (("HR", hr), ("bicubic", bicubic)):
        show(name, image)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "image": case.image.name,
        "crop": {"top": case.top, "left": case.left, "side": case.side},
        "degradation": case.degradation,
        "scale": scale,
        "threads": plan.threads,
        "settings": {k: v for k, v in asdict(plan.settings).items() if k not in SWITCHES},
        "bicubic": _scores(bicubic, hr, scale),
        "rows": [],
    }
    for name, settings in plan.rows():
        row, image = _measure_row(name, IkeFit(lr, scale, settings), hr, scale)
        report["rows"].append(asdict(row))
        show(name, image)
        keep(report)
    return report


def _measure_row(name: str, fit: IkeFit, hr: Image, scale: int) -> tuple[AblationRow, Image]:
    on_the_way, seconds = [psnr_y(fit.image(), hr, scale)], 0.0
    for _ in range(_LOOKS):
        started = time.process_time()
        for _ in range(fit.iterations // _LOOKS):
            fit.step()
        seconds += time.process_time() - started
        on_the_way.append(psnr_y(fit.image(), hr, scale))
    image = fit.image()
    found = _scores(image, hr, scale)
    return AblationRow(name, **found, psnr_on_the_way=on_the_way, processor_seconds=seconds), image


def _scores(image: Image, hr: Image, scale: int) -> dict[str, float]:
    return {"psnr_y": psnr_y(image, hr, scale), "ssim_y": ssim_y(image, hr, scale)}


def _name(count: int) -> str:
    return f"+ {SWITCHES[count - 1].replace('_', ' ')}" if count else "none"
