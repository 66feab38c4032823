"""SFTMD, the SR network F: upscales an image for a given kernel code.

IKC (CVPR 2019), section 3.3: a residual network with spatial feature transforms, which are
conditioned on the features and on the spatially replicated kernel code. Parameter names follow the
published checkpoints.
"""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.kernels.bicubic import cubic
from ikc_deploy.networks.architecture import Architecture

CodeBorder = Literal["zero", "replicate"]

SLOPE = 0.2
"""Negative slope of every LeakyReLU of the reference networks."""

_MIN_DEVIATION = 1e-3
"""Smallest divisor of a component, relative to the largest deviation."""


class CodeNormalization(nn.Module):
    """(code - mean) / deviation per component; the identity in imported reference networks.

    Args:
        code_size: Number of components of a code.
    """

    def __init__(self, code_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(code_size))
        self.register_buffer("deviation", torch.ones(code_size))

    def fit_to(self, codes: NDArray[np.float32]) -> None:
        """Set mean and deviation to those of the codes `[N,code_size]` of a family of kernels.

        The deviation is bounded below: the last components of a basis hardly vary, and dividing by
        their deviation would make rounding errors of the code visible in the image.
        """
        deviation = codes.std(axis=0)
        deviation = np.maximum(deviation, _MIN_DEVIATION * deviation.max())
        cast(Tensor, self.mean).copy_(torch.from_numpy(codes.mean(axis=0)))
        cast(Tensor, self.deviation).copy_(torch.from_numpy(deviation))

    def forward(self, code: Tensor) -> Tensor:
        """Return normalised codes `[N,code_size]`."""
        return (code - cast(Tensor, self.mean)) / cast(Tensor, self.deviation)


def conditioned_conv(features: Tensor, code: Tensor, conv: nn.Conv2d, border: CodeBorder) -> Tensor:
    """Apply `conv` to features `[N,C,H,W]`, concatenated with the replicated code `[N,K]`.

    With border "zero" the code map is zero-padded like the features (as in the reference). With
    "replicate" it continues beyond the border, so the code adds one bias per channel everywhere.
    """
    if border == "zero":
        height, width = features.shape[-2:]
        code_map = code[:, :, None, None].expand(-1, -1, height, width)
        return cast(Tensor, conv(torch.cat((features, code_map.to(features.dtype)), dim=1)))
    channels = features.shape[1]
    bias = code @ conv.weight[:, channels:].sum(dim=(2, 3)).T
    output = F.conv2d(features, conv.weight[:, :channels], conv.bias, padding=1)
    return output + bias[:, :, None, None].to(output.dtype)


class SftLayer(nn.Module):
    """Spatial feature transform: features * sigmoid(gamma) + beta, both from features and code.

    Args:
        channels: Number of feature channels.
        code_size: Number of components of a code.
        border: Padding of the code map: "zero" or "replicate".
    """

    def __init__(self, channels: int, code_size: int, border: CodeBorder) -> None:
        super().__init__()
        hidden = channels // 2
        self.border: CodeBorder = border
        self.mul_conv1 = nn.Conv2d(channels + code_size, hidden, 3, padding=1)
        self.mul_conv2 = nn.Conv2d(hidden, channels, 3, padding=1)
        self.add_conv1 = nn.Conv2d(channels + code_size, hidden, 3, padding=1)
        self.add_conv2 = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` from features `[N,C,H,W]` and code `[N,code_size]`."""
        gamma = conditioned_conv(features, code, self.mul_conv1, self.border)
        gamma = self.mul_conv2(F.leaky_relu(gamma, SLOPE))
        beta = conditioned_conv(features, code, self.add_conv1, self.border)
        beta = self.add_conv2(F.leaky_relu(beta, SLOPE))
        return cast(Tensor, features * torch.sigmoid(gamma) + beta)


class SftResidualBlock(nn.Module):
    """Two modulated convolutions and a skip connection.

    Args:
        channels: Number of feature channels.
        code_size: Number of components of a code.
        border: Padding of the code map: "zero" or "replicate".
    """

    def __init__(self, channels: int, code_size: int, border: CodeBorder) -> None:
        super().__init__()
        self.sft1 = SftLayer(channels, code_size, border)
        self.sft2 = SftLayer(channels, code_size, border)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` from features `[N,C,H,W]` and code `[N,code_size]`."""
        branch = F.relu(self.sft1(features, code))
        branch = F.relu(self.sft2(self.conv1(branch), code))
        return cast(Tensor, features + self.conv2(branch))


class BicubicPhases(nn.Module):
    """Bicubic upscaling (Keys, a = -0.5) as one depthwise convolution at LR resolution.

    Returns the phases `[N,3*scale**2,H,W]` that PixelShuffle arranges into the upscaled image. The
    border is replicated. There are no trained parameters.

    Args:
        scale: Scale factor.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        phase = (np.arange(scale) + 0.5) / scale - 0.5
        taps = torch.from_numpy(cubic(np.arange(-2, 3) - phase[:, None]))
        planes = (taps[:, None, :, None] * taps[None, :, None, :]).reshape(-1, 1, 5, 5)
        self.register_buffer("taps", planes.repeat(3, 1, 1, 1).float(), persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        """Return the phases `[N,3*scale**2,H,W]` of the upscaled lr `[N,3,H,W]`."""
        padded = F.pad(lr, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(padded, cast(Tensor, self.taps).to(lr.dtype), groups=3)


class Sftmd(nn.Module):
    """F: sr `[N,3,s*H,s*W]` in [0,1] from lr `[N,3,H,W]` in [0,1] and code `[N,code_size]`.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        channels, scale = settings.channels, settings.scale
        compact = settings.design == "compact"
        border: CodeBorder = "replicate" if compact else "zero"
        self.settings = settings
        self.normalize = CodeNormalization(settings.code_size)
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        for index in range(1, settings.blocks + 1):
            block = SftResidualBlock(channels, settings.code_size, border)
            self.add_module(f"SFT-residual{index}", block)
        self.sft = SftLayer(channels, settings.code_size, border)
        self.conv_mid = nn.Conv2d(channels, channels, 3, padding=1)
        self.upscale = nn.Identity() if compact else _reference_upscale(channels, scale)
        if compact:
            self.bicubic = BicubicPhases(scale)
            self.conv_output = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        else:
            self.conv_output = nn.Conv2d(channels, 3, 9, padding=4)

    @property
    def residual_blocks(self) -> list[SftResidualBlock]:
        """Residual blocks, in order."""
        names = (f"SFT-residual{index}" for index in range(1, self.settings.blocks + 1))
        return [cast(SftResidualBlock, self.get_submodule(name)) for name in names]

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,s*H,s*W]` in [0,1] from lr `[N,3,H,W]` and code `[N,code_size]`."""
        return self.unclamped(lr, code).clamp(0.0, 1.0)

    def unclamped(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return the image before the final clamp, for the training loss."""
        code = self.normalize(code)
        before = F.leaky_relu(self.conv1(lr), SLOPE)
        before = self.conv3(F.leaky_relu(self.conv2(before), SLOPE))
        features = before
        for block in self.residual_blocks:
            features = block(features, code)
        features = self.upscale(self.conv_mid(self.sft(features + before, code)))
        image = self.conv_output(features)
        if self.settings.design == "reference":
            return cast(Tensor, image)
        # The skip is float32 even with autocast: bfloat16 is too coarse for an 8-bit image.
        with torch.autocast(lr.device.type, enabled=False):
            phases = image.to(lr.dtype) + self.bicubic(lr)
            return F.pixel_shuffle(phases, self.settings.scale)

    def initialize(self) -> None:
        """Initialise all layers (He), the last ones small; a compact F starts near bicubic."""
        initialize_he(self, SLOPE)
        with torch.no_grad():
            for block in self.residual_blocks:
                block.conv2.weight.mul_(0.1)
            self.conv_output.weight.mul_(0.001 if self.settings.design == "compact" else 0.1)


def _reference_upscale(channels: int, scale: int) -> nn.Sequential:
    steps = [2, 2] if scale == 4 else [scale]
    layers: list[nn.Module] = []
    for step in steps:
        layers.append(nn.Conv2d(channels, channels * step**2, 3, padding=1))
        layers += [nn.PixelShuffle(step), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def initialize_he(module: nn.Module, slope: float) -> None:
    """Initialise every convolution and linear layer of `module` (He), with biases of zero.

    Args:
        module: Module to change in place.
        slope: Negative slope of the LeakyReLU that follows; 0 for ReLU.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=slope)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
