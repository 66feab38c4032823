"""The predictor P: a first kernel code from the LR image (IKC, section 3.2)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.kernel_parametrization import build_parametrization
from ikc_deploy.networks.layers import conv_relu, statistics, widened
from ikc_deploy.networks.sftmd import SLOPE, initialize_he

_STRIDES = (1, 1, 1, 2, 1, 1)


class ReferencePredictor(nn.Module):
    """Six 5x5 convolutions and a mean over space; loads the published checkpoint.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        width = settings.estimator_channels
        channels = [3, *[width] * (len(_STRIDES) - 1), settings.code_size]
        layers: list[nn.Module] = []
        for index, stride in enumerate(_STRIDES):
            layers.append(nn.Conv2d(channels[index], channels[index + 1], 5, stride, padding=2))
            layers.append(nn.LeakyReLU(SLOPE))
        self.ConvNet = nn.Sequential(*layers)

    def forward(self, lr: Tensor) -> Tensor:
        """Return the code `[N,code_size]` of lr `[N,3,H,W]` in [0,1]."""
        return cast(Tensor, self.ConvNet(lr)).mean(dim=(2, 3))

    def initialize(self) -> None:
        """Initialise all layers (He); with PyTorch's default this network does not learn."""
        initialize_he(self, SLOPE)


class StatisticsPredictor(nn.Module):
    """3x3 convolutions, mean and deviation over space, then the blur's spread, then its code.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        wide = settings.estimator_channels
        narrow = max(wide // 2, 1)
        self.features = nn.Sequential(
            conv_relu(3, narrow),
            conv_relu(narrow, narrow),
            conv_relu(narrow, narrow, stride=2),
            conv_relu(narrow, wide),
            conv_relu(wide, wide, stride=2),
            conv_relu(wide, wide),
        )
        self.chart = build_parametrization(settings)
        self.levels = settings.levels
        self.head = nn.Sequential(
            nn.Linear(2 * wide, wide),
            nn.ReLU(),
            nn.Linear(wide, self.chart.parameter_count + self.levels),
        )
        low, high = settings.sigma_range
        centre = [0.5 * (low + high)] + [0.0] * (self.chart.parameter_count - 1)
        self.register_buffer("centre", torch.tensor(centre), persistent=False)

    def readings(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return what lr `[N,3,H,W]` in [0,1] shows of its blur and its degradation, not clamped.

        Returns:
            The kernel parameters `[N,S]` in HR pixels: S = 1, sigma, for isotropic kernels; S = 3
            for anisotropic ones (ellipses.py). The levels `[N,levels]`, in `LEVEL_UNITS`.
        """
        found = widened(self.head(statistics(self.features(lr))))
        unit, levels = torch.split(found, [self.chart.parameter_count, self.levels], dim=1)
        half_range = 0.5 * (self.chart.high - self.chart.low)
        return cast(Tensor, self.centre) + half_range * unit, levels

    def code(self, parameters: Tensor, levels: Tensor) -> Tensor:
        """Return the code `[N,code_size]` of kernel parameters `[N,S]` and levels `[N,levels]`."""
        code = self.chart.code(parameters)
        if not self.levels:
            return code
        # A parametrization returns zeros in the components of the levels.
        return code + F.pad(levels.clamp(0.0, 1.0), (code.shape[1] - self.levels, 0))

    def forward(self, lr: Tensor) -> Tensor:
        """Return the code `[N,code_size]` of lr `[N,3,H,W]` in [0,1]."""
        return self.code(*self.readings(lr))

    def initialize(self) -> None:
        """Initialise all layers (He)."""
        initialize_he(self, 0.0)


Predictor = ReferencePredictor | StatisticsPredictor


def build_predictor(settings: Architecture) -> Predictor:
    """Return an uninitialised predictor of the architecture's design."""
    if settings.design == "reference":
        return ReferencePredictor(settings)
    return StatisticsPredictor(settings)
