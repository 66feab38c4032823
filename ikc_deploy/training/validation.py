"""A small measurement while training: a few HR images, a few sigmas, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.imaging.degrade import crop_to_multiple, degrade_gaussian, quantize
from ikc_deploy.imaging.image_io import list_images, read_rgb
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.networks.checkpoints import IkcNetworks


@dataclass(frozen=True)
class ValidationCase:
    """One degraded image."""

    hr: NDArray[np.uint8]
    lr: Tensor
    sigma: float


TOLERATED_LOSS: Final = 0.02
"""Decibels that a correction has to gain to be worth its time."""


def recommended_iters(curve: Sequence[float]) -> int:
    """Return the fewest corrections that are within `TOLERATED_LOSS` of the best number of them.

    Args:
        curve: Mean PSNR in dB at steps 0, 1, ... of the loop.
    """
    best = max(curve)
    return next(step for step, value in enumerate(curve) if value >= best - TOLERATED_LOSS)


def load_cases(folder: Path, sigmas: tuple[float, ...], scale: int) -> list[ValidationCase]:
    """Every image of `folder` degraded by every sigma."""
    cases = []
    for path in list_images(folder):
        hr = crop_to_multiple(read_rgb(path), scale)
        for sigma in sigmas:
            lr = torch.from_numpy(degrade_gaussian(hr, sigma, scale))
            cases.append(ValidationCase(hr, lr.permute(2, 0, 1)[None].float() / 255, sigma))
    return cases


@torch.no_grad()
def validate(
    networks: IkcNetworks, cases: list[ValidationCase], stage: str, iters: int, device: torch.device
) -> dict[str, float]:
    """Mean PSNR-Y (dB) of what the stage has made possible, and mean absolute sigma errors.

    Keys: `true_kernel`; from the predictor on `step0`, `sigma_mae0`; from the corrector on
    `step1`... and `sigma_mae1`... up to `iters`.
    """
    scale, basis = networks.architecture.scale, networks.basis
    figures: dict[str, list[float]] = {}

    def record(case: ValidationCase, key: str, sr: Tensor) -> None:
        image = quantize(sr[0].permute(1, 2, 0).float().cpu().numpy() * 255)
        figures.setdefault(key, []).append(psnr_y(image, case.hr, scale))

    for case in cases:
        lr = case.lr.to(device)
        if stage in ("sftmd", "joint"):
            code = torch.from_numpy(basis.code_of_sigma([case.sigma])).to(device)
            record(case, "true_kernel", networks.sftmd(lr, code))
        if stage == "sftmd":
            continue
        code = networks.predictor(lr)
        for step in range(1 if stage == "predictor" else iters + 1):
            sigma = float(basis.sigma_of_code(code.cpu().numpy())[0])
            figures.setdefault(f"sigma_mae{step}", []).append(abs(sigma - case.sigma))
            sr = networks.sftmd(lr, code)
            record(case, f"step{step}", sr)
            code = networks.corrector(sr, code)
    return {key: float(np.mean(values)) for key, values in figures.items()}
