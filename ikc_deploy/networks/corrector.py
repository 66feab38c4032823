"""The corrector C: corrects the kernel code from artifacts in the SR image (IKC, section 3.2).

If the kernel is too wide, the SR image has ringing; if it is too narrow, blur remains. From the SR
image and its code, C computes the corrected code h + dh.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.kernel_parametrization import build_parametrization
from ikc_deploy.networks.layers import conv_relu, statistics, widened
from ikc_deploy.networks.sftmd import SLOPE, CodeNormalization, initialize_he

_STRIDES = (1, 2, 1, 2, 1, 1, 1)


class ReferenceCorrector(nn.Module):
    """Seven 5x5 convolutions joined with a code branch; loads the published checkpoint.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        width, code_size = settings.estimator_channels, settings.code_size
        layers: list[nn.Module] = []
        for index, stride in enumerate(_STRIDES):
            layers.append(nn.Conv2d(width if index else 3, width, 5, stride, padding=2))
            layers.append(nn.LeakyReLU(SLOPE))
        self.ConvNet = nn.Sequential(*layers)
        self.code_dense = nn.Sequential(
            nn.Linear(code_size, width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, width),
            nn.LeakyReLU(SLOPE),
        )
        self.global_dense = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, width, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, code_size, 1),
        )

    def forward(self, sr: Tensor, code: Tensor) -> Tensor:
        """Return the next code from sr `[N,3,sH,sW]` in [0,1] and the code `[N,code_size]`."""
        features = self.ConvNet(sr)
        height, width = features.shape[-2:]
        code_map = self.code_dense(code)[:, :, None, None].expand(-1, -1, height, width)
        correction = self.global_dense(torch.cat((features, code_map), dim=1))
        return code + cast(Tensor, correction).mean(dim=(2, 3))

    def initialize(self) -> None:
        """Initialise all layers (He)."""
        initialize_he(self, SLOPE)


class StatisticsCorrector(nn.Module):
    """3x3 convolutions modulated by the code, statistics over space, and a head for the step.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        wide = settings.estimator_channels
        narrow, middle = max(3 * wide // 8, 1), max(3 * wide // 4, 1)
        self.normalize = CodeNormalization(settings.code_size)
        self.embed = nn.Sequential(
            nn.Linear(settings.code_size, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU()
        )
        self.stem = nn.Sequential(
            conv_relu(3, narrow),
            conv_relu(narrow, middle, stride=2),
            conv_relu(middle, wide, stride=2),
        )
        self.modulate1 = nn.Linear(wide, 2 * wide)
        self.body1 = conv_relu(wide, wide)
        self.modulate2 = nn.Linear(wide, 2 * wide)
        self.body2 = conv_relu(wide, wide)
        self.chart = build_parametrization(settings)
        self.head = nn.Sequential(
            nn.Linear(3 * wide, wide), nn.ReLU(), nn.Linear(wide, self.chart.parameter_count)
        )

    def step(self, sr: Tensor, code: Tensor) -> Tensor:
        """Return the correction `[N,S]` of the blur's spread, in HR pixels, for (sr, code).

        S = 1 (sigma) for isotropic kernels, S = 3 for anisotropic ones.
        """
        embedding = self.embed(self.normalize(code))
        features = _modulated(self.stem(sr), self.modulate1(embedding))
        features = _modulated(self.body1(features), self.modulate2(embedding))
        summary = torch.cat((statistics(self.body2(features)), widened(embedding)), dim=1)
        return 0.5 * (self.chart.high - self.chart.low) * widened(self.head(summary))

    @property
    def last_layer(self) -> nn.Linear:
        """Last layer; scaling it changes the step size of the loop."""
        return cast(nn.Linear, self.head[-1])

    def forward(self, sr: Tensor, code: Tensor) -> Tensor:
        """Return the next code from sr `[N,3,sH,sW]` in [0,1] and the code `[N,code_size]`."""
        return self.apply_step(code, self.step(sr, code))

    def apply_step(self, code: Tensor, step: Tensor) -> Tensor:
        """Return the code `[N,code_size]` of a blur whose spread is larger by `step` `[N,S]`.

        A step of zero returns the same code. The result is not simply the code of the new spread:
        the map from codes to spreads may be inexact, and its error would be added at every
        correction.
        """
        before = self.chart.kernel_parameters(code)
        return code + (self.chart.code(before + step) - self.chart.code(before))

    def initialize(self) -> None:
        """Initialise all layers (He); the first step is close to zero."""
        initialize_he(self, 0.0)
        with torch.no_grad():
            for layer in (self.modulate1, self.modulate2, self.last_layer):
                layer.weight.mul_(0.1)


def _modulated(features: Tensor, modulation: Tensor) -> Tensor:
    """Apply FiLM (Perez et al., 2018): features * (1 + gamma) + beta, constant in space."""
    gamma, beta = modulation[:, :, None, None].to(features.dtype).chunk(2, dim=1)
    return features * (1 + gamma) + beta


Corrector = ReferenceCorrector | StatisticsCorrector


def build_corrector(settings: Architecture) -> Corrector:
    """Return an uninitialised corrector of the architecture's design."""
    if settings.design == "reference":
        return ReferenceCorrector(settings)
    return StatisticsCorrector(settings)
