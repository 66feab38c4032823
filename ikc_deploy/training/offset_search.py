"""The offset of P's sigma that gives the best images: a search at the end of a stage.

A kernel that is too wide costs more than one that is too narrow by as much: F then draws ringing
where it would leave blur. So the estimate that gives the best images on the mean is narrower than
the one with the smallest error (docs/training.md). Only round blur has one sigma to shift.
"""

from __future__ import annotations

from typing import Final

import torch

from ikc_deploy.imaging.torch_ops import psnr
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import StatisticsPredictor
from ikc_deploy.training.stage_context import StageContext

OFFSETS: Final = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04)
"""Offsets that are compared, in LR pixels: sigma is lowered by them."""

_ENOUGH: Final = 0.75
"""Share of the best offset's gain that a smaller one needs to be preferred. The best offset grows
with P's error, and P errs more on crops than on whole images."""
_CROPS: Final = 256
"""Number of crops that are compared, at least."""


@torch.no_grad()
def search_offset(context: StageContext[IkcNetworks]) -> dict[str, float]:
    """Lower the sigma that P reads by the offset with the best images; return figures to log.

    The images are F's on new crops, compared by their mean PSNR on RGB. The smallest offset is
    taken that has most of the best one's gain. P stays unchanged if its
    design does not read sigma, or if its kernels are elliptic.

    Returns:
        The chosen offset in HR pixels, and the gain in dB of each offset in LR pixels.
    """
    predictor, settings = context.networks.predictor, context.networks.architecture
    if not isinstance(predictor, StatisticsPredictor) or settings.kernels != "isotropic":
        return {}
    batches = -(-_CROPS // context.settings.batch)
    found = torch.zeros(len(OFFSETS), dtype=torch.float64)
    for index in range(batches):
        # Batches that no step of the stage has drawn.
        batch = context.source.batch(context.settings.steps + index)
        parameters, levels = (each.float() for each in predictor.readings(batch.lr))
        codes = [predictor.code(parameters - settings.scale * each, levels) for each in OFFSETS]
        values = [psnr(context.image(batch, code), batch.hr).mean() for code in codes]
        found += torch.stack(values).cpu()
    gains = (found - found[0]) / batches
    enough = int(torch.nonzero(gains >= _ENOUGH * gains.max())[0])
    chosen = context.processes.broadcast(settings.scale * OFFSETS[enough])
    predictor.shift(-chosen)
    figures = {f"gain_at_{each:g}": float(gain) for each, gain in zip(OFFSETS, gains, strict=True)}
    return {"offset": chosen} | figures
