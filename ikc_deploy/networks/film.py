"""FilmTrunk, the SR network F of the film sizes: plain residual blocks modulated per channel.

The kernel code describes the whole image, so it enters as one scale and one shift per channel
(FiLM: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018)
after every convolution of a block, much as DANv2's Restorer conditions its blocks. SFTMD's spatial
transforms cost more than half of its operations; at equal training and inference time this trunk is
0.4 dB better (docs/training.md).
"""

from __future__ import annotations

from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.sftmd import BicubicPhases, CodeNormalization, initialize_he

EMBEDDING: Final = 64
"""Width of the embedding of a code; every scale and shift is a linear map of the embedding."""


class FilmConv(nn.Module):
    """A 3x3 convolution whose output channels are scaled and shifted: (1 + g) conv(x) + b.

    Args:
        channels: Number C of input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(EMBEDDING, 2 * channels)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` from features `[N,C,H,W]` and embedding `[N,E]`."""
        modulation = self.modulation(embedding)[:, :, None, None].to(features.dtype)
        scale, shift = modulation.chunk(2, dim=1)
        return cast(Tensor, self.conv(features)) * (1 + scale) + shift


class FilmBlock(nn.Module):
    """Two modulated convolutions and a skip connection.

    Args:
        channels: Number C of input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = FilmConv(channels)
        self.second = FilmConv(channels)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` from features `[N,C,H,W]` and embedding `[N,E]`."""
        branch = F.relu(self.first(features, embedding))
        return features + cast(Tensor, self.second(branch, embedding))


class FilmTrunk(nn.Module):
    """F: sr `[N,3,s*H,s*W]` in [0,1] from lr `[N,3,H,W]` in [0,1] and code `[N,code_size]`.

    Everything is computed at LR resolution; the last convolution returns the phases of a residual
    that is added to the bicubic image.

    Args:
        settings: Sizes of the networks.
    """

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        channels, scale = settings.channels, settings.scale
        self.settings = settings
        self.normalize = CodeNormalization(settings.code_size)
        self.embed = nn.Sequential(
            nn.Linear(settings.code_size, EMBEDDING),
            nn.ReLU(),
            nn.Linear(EMBEDDING, EMBEDDING),
            nn.ReLU(),
        )
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(FilmBlock(channels) for _ in range(settings.blocks))
        self.conv_mid = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_output = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        self.bicubic = BicubicPhases(scale)

    @property
    def residual_blocks(self) -> list[FilmBlock]:
        """Residual blocks, in order."""
        return [cast(FilmBlock, block) for block in self.blocks]

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,s*H,s*W]` in [0,1] from lr `[N,3,H,W]` and code `[N,code_size]`."""
        return self.unclamped(lr, code).clamp(0.0, 1.0)

    def unclamped(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return the image before the final clamp, for the training loss."""
        embedding = self.embed(self.normalize(code))
        before = features = self.conv_first(lr)
        for block in self.residual_blocks:
            features = block(features, embedding)
        image = self.conv_output(before + self.conv_mid(features))
        # The skip is float32 even with autocast: bfloat16 is too coarse for an 8-bit image.
        with torch.autocast(lr.device.type, enabled=False):
            phases = image.to(lr.dtype) + self.bicubic(lr)
            return F.pixel_shuffle(phases, self.settings.scale)

    def initialize(self) -> None:
        """Initialise all layers (He); blocks start near the identity and the image near bicubic."""
        initialize_he(self, 0.0)
        with torch.no_grad():
            for block in self.residual_blocks:
                block.second.conv.weight.mul_(0.1)
                for part in (block.first, block.second):
                    part.modulation.weight.mul_(0.1)
            self.conv_output.weight.mul_(0.001)
