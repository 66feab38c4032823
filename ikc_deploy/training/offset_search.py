"""Search for the offset of P's sigma that gives the best images, at the end of a stage.

Overestimating sigma costs more than underestimating it: F then adds ringing instead of leaving some
blur. So the estimates that give the best images on average are smaller than those with the smallest
error (docs/training.md). Only isotropic blur has a single sigma to shift.
"""

from __future__ import annotations

from typing import Final

import torch

from ikc_deploy.imaging.torch_ops import psnr
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import StatisticsPredictor
from ikc_deploy.training.stage_context import StageContext

OFFSETS: Final = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04)
"""Candidate reductions of sigma, in LR pixels."""

_ENOUGH: Final = 0.75
"""A larger offset with this share of the best gain is preferred. The best offset grows with P's
error, which is larger on images that are softer than the training images (docs/training.md)."""
_CROPS: Final = 256
"""Minimum number of crops for the comparison."""


@torch.no_grad()
def search_offset(context: StageContext[IkcNetworks]) -> dict[str, float]:
    """Reduce P's sigma by the offset with the best images; return figures to log.

    Offsets are compared by the mean RGB PSNR of F's images of new crops. The largest offset with
    most of the best gain is chosen. P is left unchanged if its design does not estimate sigma, or
    if its kernels are elliptic.

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
        parameters, levels = (each.float() for each in predictor.estimates(batch.lr))
        codes = [predictor.code(parameters - settings.scale * each, levels) for each in OFFSETS]
        values = [psnr(context.image(batch, code), batch.hr).mean() for code in codes]
        found += torch.stack(values).cpu()
    gains = (found - found[0]) / batches
    largest = int(torch.nonzero(gains >= _ENOUGH * gains.max())[-1])
    chosen = context.processes.broadcast(settings.scale * OFFSETS[largest])
    predictor.shift_sigma(-chosen)
    figures = {f"gain_at_{each:g}": float(gain) for each, gain in zip(OFFSETS, gains, strict=True)}
    return {"offset": chosen} | figures
