"""Validation during training: PSNR and sigma errors on a few HR images and sigmas, in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.imaging.degrade import crop_to_multiple, degrade_gaussian
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.torch_ops import to_image, to_tensor
from ikc_deploy.loops import CODE, LR, NEXT_CODE, SR
from ikc_deploy.networks.loop_networks import IkcNetworks, LoopNetworks


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
"""Maximum loss of PSNR in dB that is accepted for fewer corrections."""


def recommended_iters(curve: Sequence[float]) -> int:
    """Return the smallest number of corrections whose PSNR is within `TOLERATED_LOSS` of the best.

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
            lr = to_tensor(degrade_gaussian(hr, sigma, scale), "cpu")
            cases.append(ValidationCase(hr, lr, sigma))
    return cases


_TRAINS_IMAGES: Final = ("sftmd", "joint", "dan")
"""Stages that train the image network, which is then also measured with true codes."""

_WHOLE_LOOP: Final = ("corrector", "joint", "dan")
"""Stages after which every step of the loop is measured."""


@torch.no_grad()
def validate(
    networks: LoopNetworks,
    cases: list[ValidationCase],
    stage: str,
    iters: int,
    device: torch.device,
) -> dict[str, float]:
    """Return mean PSNR-Y in dB and mean absolute errors of sigma for the networks trained so far.

    Args:
        networks: Networks on `device`, in evaluation mode.
        cases: Images to upscale.
        stage: Name of the current stage.
        iters: Number of updates of the code.
        device: Device of the networks.

    Returns:
        Means over `cases`: `sigma_mae0` in every stage, except where the loop starts at a constant
        code; `true_kernel` (with P's levels, if codes have any) in `sftmd`, `joint` and `dan`;
        `step0` after `predictor`; `step1`... and `sigma_mae1`... up to `iters` after `sftmd`.
    """
    loop, modules = networks.loop, networks.modules()
    figures: dict[str, list[float]] = {}

    def record(key: str, value: float) -> None:
        figures.setdefault(key, []).append(value)

    def run(graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        output = SR if graph == loop.image.name else NEXT_CODE
        return {output: modules[graph](*inputs.values())}

    levels = networks.architecture.levels
    for case in cases:
        lr = case.lr.to(device)
        if isinstance(networks, IkcNetworks):
            start = networks.predictor(lr)
        else:
            start = torch.from_numpy(networks.basis.delta_code()).to(device)[None]
        if stage in _TRAINS_IMAGES:
            true_code = torch.from_numpy(networks.basis.code_of_sigma([case.sigma])).to(device)
            # As in use: with a given sigma, P estimates the levels.
            true_code[:, len(true_code[0]) - levels :] = start[:, len(start[0]) - levels :]
            sr = run(loop.image.name, {LR: lr, CODE: true_code})[SR]
            record("true_kernel", _psnr(networks, sr, case))
        if stage == "predictor":
            record("sigma_mae0", _sigma_error(networks, start, case))
            continue
        steps = loop.walk(run, lr, start, iters if stage in _WHOLE_LOOP else 0)
        for step, (code, images) in enumerate(steps):
            if step or loop.start is not None:
                record(f"sigma_mae{step}", _sigma_error(networks, code, case))
            record(f"step{step}", _psnr(networks, images[SR], case))
    return {key: float(np.mean(values)) for key, values in figures.items()}


def _psnr(networks: LoopNetworks, sr: Tensor, case: ValidationCase) -> float:
    return psnr_y(to_image(sr.float()), case.hr, networks.architecture.scale)


def _sigma_error(networks: LoopNetworks, code: Tensor, case: ValidationCase) -> float:
    return abs(float(networks.basis.sigma_of_code(code.cpu().numpy())[0]) - case.sigma)
