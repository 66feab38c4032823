"""Validation while training: PSNR and sigma errors on a few HR images and sigmas, in torch."""

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
from ikc_deploy.networks.loop_networks import IkcNetworks


@dataclass(frozen=True)
class ValidationCase:
    """One degraded image."""

    hr: NDArray[np.uint8]
    """HR image `[sH,sW,3]`."""
    lr: Tensor
    """LR image `[1,3,H,W]` float32 in [0,1], on the CPU."""
    sigma: float
    """Sigma of the blur in HR pixels."""


TOLERATED_LOSS: Final = 0.02
"""Largest loss of PSNR in dB that is accepted for fewer corrections."""


def recommended_iters(curve: Sequence[float]) -> int:
    """Return the fewest corrections that are within `TOLERATED_LOSS` of the best number of them.

    Args:
        curve: Mean PSNR in dB at steps 0, 1, ... of the loop.
    """
    best = max(curve)
    return next(step for step, value in enumerate(curve) if value >= best - TOLERATED_LOSS)


def load_cases(folder: Path, sigmas: tuple[float, ...], scale: int) -> list[ValidationCase]:
    """Return every image of `folder` degraded by every sigma, in HR pixels.

    Raises:
        InputError: The folder is empty, or an image cannot be read.
    """
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
    """Return the mean PSNR-Y in dB and mean absolute sigma errors of the networks trained so far.

    Args:
        networks: Networks on `device`, in evaluation mode.
        cases: Images to upscale.
        stage: Name of the current stage.
        iters: Number of corrections after the predictor.
        device: Device of the networks.

    Returns:
        Means over `cases`: `sigma_mae0` in every stage; `true_kernel` (with P's levels, if codes
        have any) in `sftmd` and `joint`;
        `step0` after `predictor`; `step1`... and `sigma_mae1`... up to `iters` after `sftmd`.
    """
    scale, basis = networks.architecture.scale, networks.basis
    figures: dict[str, list[float]] = {}

    def record(case: ValidationCase, key: str, sr: Tensor) -> None:
        image = quantize(sr[0].permute(1, 2, 0).float().cpu().numpy() * 255)
        figures.setdefault(key, []).append(psnr_y(image, case.hr, scale))

    levels = networks.architecture.levels
    for case in cases:
        lr = case.lr.to(device)
        code = networks.predictor(lr)
        if stage in ("sftmd", "joint"):
            true_code = torch.from_numpy(basis.code_of_sigma([case.sigma])).to(device)
            # As in use: with a given sigma, P estimates the levels.
            true_code[:, len(true_code[0]) - levels :] = code[:, len(code[0]) - levels :]
            record(case, "true_kernel", networks.sftmd(lr, true_code))
        for step in range(iters + 1 if stage in ("corrector", "joint") else 1):
            sigma = float(basis.sigma_of_code(code.cpu().numpy())[0])
            figures.setdefault(f"sigma_mae{step}", []).append(abs(sigma - case.sigma))
            if stage == "predictor":
                continue
            sr = networks.sftmd(lr, code)
            record(case, f"step{step}", sr)
            if step < iters:
                code = networks.corrector(sr, code)
    return {key: float(np.mean(values)) for key, values in figures.items()}
