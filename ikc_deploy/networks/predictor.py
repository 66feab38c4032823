"""The predictor P: estimates the initial kernel code from the LR image (IKC, section 3.2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    """Six 5x5 convolutions and global average pooling; loads the published checkpoint.

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


class StatisticsPredictor(nn.Module, ABC):
    """Base class of predictors that estimate the blur's spread in pixels, and compute its code.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        self.chart = build_parametrization(settings)
        self.levels = settings.levels
        low, high = settings.sigma_range
        centre = [0.5 * (low + high)] + [0.0] * (self.chart.parameter_count - 1)
        self.register_buffer("centre", torch.tensor(centre), persistent=False)

    @abstractmethod
    def estimates(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate blur and degradation levels of lr `[N,3,H,W]` in [0,1], without clamping.

        Returns:
            Kernel parameters `[N,S]` in HR pixels: S = 1 (sigma) for isotropic kernels, S = 3 for
            anisotropic ones; and levels `[N,levels]` in `LEVEL_UNITS`.
        """

    def code(self, parameters: Tensor, levels: Tensor) -> Tensor:
        """Return the code `[N,code_size]` of kernel parameters `[N,S]` and levels `[N,levels]`."""
        code = self.chart.code(parameters)
        if not self.levels:
            return code
        # A parametrization returns zeros in the components of the levels.
        return code + F.pad(levels.clamp(0.0, 1.0), (code.shape[1] - self.levels, 0))

    def forward(self, lr: Tensor) -> Tensor:
        """Return the code `[N,code_size]` of lr `[N,3,H,W]` in [0,1]."""
        return self.code(*self.estimates(lr))

    def initialize(self) -> None:
        """Initialise all layers (He)."""
        initialize_he(self, 0.0)

    @abstractmethod
    def heads(self) -> list[nn.Sequential]:
        """Return the layers that map statistics to kernel parameters, in units of the range."""

    def rescale_head(self, head: nn.Sequential, theirs: Architecture, ours: Architecture) -> None:
        """Convert, in place, a head that was trained at another scale or for another range.

        Its sigma in LR pixels is unchanged, but is expressed in units of this network's range.

        Args:
            head: One of `heads`, with the weights of the other network.
            theirs: Architecture for which the head was trained, of isotropic kernels.
            ours: Architecture of this network, of isotropic kernels.
        """
        last = cast(nn.Linear, head[-1])
        (low, high), (start, end) = theirs.sigma_range, ours.sigma_range
        ratio = ours.scale / theirs.scale
        gain = ratio * (high - low) / (end - start)
        offset = (ratio * (low + high) - (start + end)) / (end - start)
        with torch.no_grad():
            last.weight[0] *= gain
            last.bias[0] = gain * last.bias[0] + offset

    def shift_sigma(self, pixels: float) -> None:
        """Add HR pixels to the sigma of every head, in place; isotropic kernels only."""
        half_range = 0.5 * (self.chart.high - self.chart.low)
        with torch.no_grad():
            for head in self.heads():
                cast(nn.Linear, head[-1]).bias[0] += pixels / half_range

    def in_pixels(self, unit: Tensor) -> Tensor:
        """Convert the output of a head `[...,S]` to kernel parameters in HR pixels."""
        half_range = 0.5 * (self.chart.high - self.chart.low)
        return cast(Tensor, self.centre) + half_range * unit


class SinglePredictor(StatisticsPredictor):
    """3x3 convolutions, mean and standard deviation over space, and a head for the spread.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__(settings)
        wide = settings.estimator_channels
        self.features = feature_layers(wide)
        self.head = head_layers(2 * wide, wide, self.chart.parameter_count + self.levels)

    def heads(self) -> list[nn.Sequential]:
        """Return the only head."""
        return [self.head]

    def estimates(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kernel parameters and the levels; see `StatisticsPredictor.estimates`."""
        found = widened(self.head(statistics(self.features(lr))))
        unit, levels = torch.split(found, [self.chart.parameter_count, self.levels], dim=1)
        return self.in_pixels(unit), levels


class Expert(nn.Module):
    """One estimator of a `MixturePredictor`.

    Args:
        wide: Largest number of feature channels C.
        outputs: Number S of kernel parameters.
    """

    def __init__(self, wide: int, outputs: int) -> None:
        super().__init__()
        self.features = feature_layers(wide)
        self.head = head_layers(2 * wide, wide, outputs)

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return statistics `[N,2C]` and unit parameters `[N,S]` of lr `[N,3,H,W]` in [0,1]."""
        found = statistics(self.features(lr))
        return found, self.head(found)


class MixturePredictor(StatisticsPredictor):
    """Experts for clean images, experts for degraded images, and a gate that blends their means.

    A simple mixture of experts (Jacobs et al., "Adaptive Mixtures of Local Experts", Neural
    Computation 1991): from the statistics of all experts, the gate estimates the probability that
    the image is noisy or compressed, and the levels. A single estimator for all images is worse on
    clean ones, and the mean of several is better than each of them (docs/training.md).

    Args:
        settings: Sizes of the networks; `experts` is not 0.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__(settings)
        wide, count = settings.estimator_channels, settings.experts
        self.experts = nn.ModuleList(
            Expert(wide, self.chart.parameter_count) for _ in range(2 * count)
        )
        """The experts for clean images, followed by those for degraded images."""
        self.gate = head_layers(4 * wide * count, max(wide // 2, 1), 1 + self.levels)

    def heads(self) -> list[nn.Sequential]:
        """Return the heads of the experts, in the order of `experts`."""
        return [cast(Expert, expert).head for expert in self.experts]

    def estimates(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kernel parameters and the levels; see `StatisticsPredictor.estimates`."""
        parameters, levels, _ = self.gated_estimates(lr)
        return parameters, levels

    def gated_estimates(self, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `estimates` of lr `[N,3,H,W]` in [0,1], and the gate.

        Returns:
            Kernel parameters `[N,S]`, levels `[N,levels]`, and the log-odds `[N,1]` that the image
            is degraded.
        """
        found = [expert(lr) for expert in self.experts]
        # Clamped, so that an outlier of one expert does not outweigh the others.
        each = [widened(unit).clamp(-1.0, 1.0) for _, unit in found]
        half = len(each) // 2
        clean, degraded = _mean(each[:half]), _mean(each[half:])
        gate = widened(self.gate(torch.cat([statistics for statistics, _ in found], dim=1)))
        log_odds, levels = torch.split(gate, [1, self.levels], dim=1)
        share = torch.sigmoid(log_odds)
        # F denoises by the given levels: small false levels of a clean image cost 0.2 dB.
        return self.in_pixels(clean + share * (degraded - clean)), share * levels, log_odds


def _mean(tensors: list[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape."""
    # Not torch.stack().mean(): pnnx 20261020 converts that to a graph without a reduction.
    return sum(tensors[1:], tensors[0]) / len(tensors)


def feature_layers(wide: int) -> nn.Sequential:
    """Return the convolutions of an estimator: `[N,3,H,W]` to `[N,wide,H/4,W/4]`."""
    narrow = max(wide // 2, 1)
    return nn.Sequential(
        conv_relu(3, narrow),
        conv_relu(narrow, narrow),
        conv_relu(narrow, narrow, stride=2),
        conv_relu(narrow, wide),
        conv_relu(wide, wide, stride=2),
        conv_relu(wide, wide),
    )


def head_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return two linear layers with a ReLU between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


Predictor = ReferencePredictor | StatisticsPredictor


def build_predictor(settings: Architecture) -> Predictor:
    """Return an uninitialised predictor of the architecture's design."""
    if settings.design == "reference":
        return ReferencePredictor(settings)
    return MixturePredictor(settings) if settings.experts else SinglePredictor(settings)
